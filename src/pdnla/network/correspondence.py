"""Semantic correspondence: the transfer of a reference's colours to a target by a frozen network's features.

Features of a frozen classification network find similar parts of two pictures whatever their colours (as in Liao et
al., "Deep Image Analogy", SIGGRAPH 2017, and He et al., "Deep Exemplar-based Colorization", SIGGRAPH 2018). Among the
few most similar cells, luminance and its local statistics select the spot (Welsh et al., "Transferring Color to
Greyscale Images", SIGGRAPH 2002, do so in the whole picture). Nothing here needs training; a learned :class:`Metric`
makes features similar where colours are.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import kornia.color
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla.network.layers import at_least_float32, grey_lightness, ramp
from pdnla.network.smoothing import guided_filter, smooth_by_likeness, smooth_outliers, window_mean

SIDE = 448
"""Pictures are matched at about ``SIDE``² pixels, the size that suits the frozen network's features best."""
CELL = 8
"""Side of a cell of the coarse matching, in pixels at the matching size."""
FINE = 2
"""Side of a spot of the fine matching, in pixels at the matching size."""
WINDOWS = (3, 9, 21)
"""Sides of the windows whose luminance is compared, in spots."""
CHANNELS = (24, 40, 112, 320)
"""Channels of the frozen network's maps that a learned metric takes, EfficientNet-Lite0's."""
RANK = 64
"""Rank of the learned metric's matrix."""
TEMPERATURE, PENALTY = 160.0, 0.3
"""Factors of the coarse attention's logits, and of a difference of L*/100 in them."""
CANDIDATES, SHARPNESS = 4, 40.0
"""Number of cells in the fine attention, and the factor of squared distances in its logits."""
DISAGREEMENT = 20.0
"""Standard deviation of the candidates' a*b* at which confidence falls to 1/e."""
AGREED = (0.68, 0.78)
"""Mean agreement of the second opinion around a place up to which it has no sure counterpart in the reference, and from
which it has one."""
_MULTIPLE = 32  # the frozen network's largest stride
_LEVELS = (0.5, 1.0, 1.0, 1.0)  # weights of the features, fine to coarse
_MARGIN = 1  # further spots around a candidate cell
_TEXTURE = 0.3  # weight of the finest features relative to luminance, in the fine matching
_SHADES = [0, *range(1, 2 * len(WINDOWS), 2)]  # of a spot's appearance, the luminances
_CONTRASTS = [*range(2, 2 * len(WINDOWS) + 1, 2)]  # and their standard deviations
_TRUST = (0.28, 0.38)  # mean best cosine of unrelated pictures, and of sufficiently similar ones
_SAMPLE = 4  # with a learned metric, every fourth cell tells whether a reference is suitable
_OPINION = 40.0  # factor of the cosines in the second opinion's logits
_RETURN = 2.0  # distance, in cells of 16 pixels, between a cell and the end of its round trip, for an agreement of 0.6
_AROUND = 5  # side of the windows whose agreement counts, in cells of 16 pixels
_SHADED = 7  # side of the windows whose median difference of luminance counts, in cells of 16 pixels
_WINDOW = 5  # side of the windows that smooth outliers, in spots


class Carried(NamedTuple):
    """A reference's colours transferred to a target.

    Attributes:
        chroma: a* and b*, ``(B, 2, H, W)``, in CIELAB's units.
        confidence: confidence of the colours, ``(B, 1, H, W)`` in [0, 1], from the similarity of the places that they
            come from and from the agreement of their colours.
    """

    chroma: Tensor
    confidence: Tensor


class Metric(nn.Module):
    """A learned metric of cells: their features are brought to others, whose cosines are compared.

    ``y = (1 + g) * x + V U x``, brought to unit length. Trained on pairs of photographs so that a cell's most similar
    cells have its colour (``scripts/train_metric.py``); the network that uses it does not train it.

    Args:
        channels: of the features.
        rank: of the matrix V U.
    """

    def __init__(self, channels: int = sum(CHANNELS), rank: int = RANK) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(channels))
        self.down = nn.Parameter(0.02 * torch.randn(channels, rank))
        self.up = nn.Parameter(torch.zeros(rank, channels))
        self.requires_grad_(False)

    def forward(self, cells: Tensor) -> Tensor:
        """Map unit feature vectors, ``(..., D)``, to others of unit length; before training, they stay as they are."""
        return F.normalize(cells + self.gain * cells + (cells @ self.down) @ self.up, dim=-1)


class ReferenceSpots(NamedTuple):
    """The encoded reference of semantic correspondence.

    Attributes:
        features: unit feature vectors of the N cells that are compared, ``(B, N, D)``.
        lightness: L*/100 of each cell, ``(B, N)``.
        spots: appearance and a*b* of the spots in and around each cell, ``(B, N, spots, C + 2)``.
        exposure: mean and standard deviation of the picture's L*/100, ``(B, 2)``.
        plain: the frozen network's own unit feature vectors, ``(B, N, D)``; without a learned metric, ``features``.
    """

    features: Tensor
    lightness: Tensor
    spots: Tensor
    exposure: Tensor
    plain: Tensor


class Opinion(NamedTuple):
    """Correspondence by meaning only, for each coarse cell of a target, ``(B, C, h, w)``.

    Attributes:
        chroma: a* and b* of the reference's places that show the same.
        cosine: similarity of the most similar of them, ``(B, 1, h, w)``.
        agreement: 1 where this place's most similar place in the target is the cell itself, less with their distance,
            ``(B, 1, h, w)`` in [0, 1].
        difference: by how much L*/100 of most cells around differs from that of their most similar places (the
            median), ``(B, 1, h, w)`` in [0, 1]: next to nothing where the reference shows the same in the same light.
    """

    chroma: Tensor
    cosine: Tensor
    agreement: Tensor
    difference: Tensor


class Match(NamedTuple):
    """The result of matching a target with a reference.

    Attributes:
        carried: the transferred colours.
        maps: the backbone's maps of the target, fine to coarse.
        opinion: the second opinion.
    """

    carried: Carried
    maps: tuple[Tensor, ...]
    opinion: Opinion


class View(NamedTuple):
    """A picture's features for matching.

    Attributes:
        lightness: L*/100 at the matching size, ``(B, 1, H, W)``; a grid of spots has ``H / 2`` × ``W / 2`` positions,
            a grid of cells ``H / 8`` × ``W / 8``.
        finest: the backbone's finest features, centred, ``(B, C, H / 4, W / 4)``.
        cells: unit feature vectors of the N cells that are compared, ``(B, N, D)``.
    """

    lightness: Tensor
    finest: Tensor
    cells: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.lightness.shape[-2] // CELL, self.lightness.shape[-1] // CELL


class SpotAttention(NamedTuple):
    """Attention of the spots of M cells over the spots of their candidate cells.

    Attributes:
        cells: numbers of the candidate cells in the reference, best first, ``(M, K)``.
        weights: ``(M, spots, K * window)`` with the sum 1; a window is a cell's spots and those around it, by rows.
        cosines: those of the candidate cells, ``(M, K)``.
        best: the best cosine with any cell of the reference, ``(M,)``.
    """

    cells: Tensor
    weights: Tensor
    cosines: Tensor
    best: Tensor

    @property
    def spot_cosines(self) -> Tensor:
        """The cosine of the candidate cell of each spot that has a weight, ``(M, K * window, 1)``."""
        window = self.weights.shape[-1] // self.cosines.shape[-1]
        return self.cosines.repeat_interleave(window, dim=1).unsqueeze(-1)


class Correspondence(nn.Module):
    """Find for each place of a grey target the corresponding places of a reference, and transfer their colours.

    Coarse: the backbone's features at four strides, computed from the luminance of both pictures. The mean over the
    picture is subtracted from each, and every cell's vector has unit length. The attention over the reference's cells
    is the softmax of ``160 * (cosine - 0.3 * |difference of L*/100|)``. Fine: within the four best cells, the softmax
    of ``-40 * d^2 + log(coarse)``, where d is the distance between luminances, their local means and standard
    deviations at three scales, and the finest features. As in Welsh et al., luminance is first brought to a common mean
    and standard deviation. Outliers are replaced by their close neighbourhood, without crossing edges
    (:func:`~pdnla.network.smoothing.smooth_outliers`), and before by spots of a wide neighbourhood that look alike
    (:func:`~pdnla.network.smoothing.smooth_by_likeness`) where the round trip to the most similar place of the
    reference and back ends elsewhere (:func:`second_opinion`). If few cells have a good match, the reference is
    unsuitable, and the result stays close to grey.

    Args:
        backbone: maps sRGB in [-1, 1] to feature maps at four strides, such as 4, 8, 16 and 32; it is frozen and not
            part of the weights.
        side: the pictures are matched at about ``side``² pixels, whatever their aspect ratio.
        metric: a learned metric, for cosines of other features than the backbone's own; None for those.
    """

    def __init__(self, backbone: nn.Module, side: int = SIDE, metric: Metric | None = None) -> None:
        super().__init__()
        self.metric = metric
        self._backbone = (backbone,)  # in a tuple, so that its weights are not part of this module's
        self.side = side

    @torch.no_grad()
    def encode_reference(self, reference: Tensor) -> ReferenceSpots:
        """Compute all that depends only on the reference, sRGB ``(B, 3, H, W)`` in [-1, 1]."""
        return self.view_and_spots(reference)[1]

    @torch.no_grad()
    def forward(self, target: Tensor, reference: Tensor | ReferenceSpots) -> Carried:
        """Transfer the reference's colours to ``target``.

        Args:
            target: a grey picture in three equal channels, ``(B, 3, H, W)`` in [-1, 1].
            reference: a colour picture, ``(B, 3, H', W')`` in [-1, 1], or its code from :meth:`encode_reference`; a
                single one serves a batch of targets.
        """
        return self.match(target, reference).carried

    @torch.no_grad()
    def match(self, target: Tensor, reference: Tensor | ReferenceSpots) -> Match:
        """Return the result of :meth:`forward` with what it depends on."""
        code = reference if isinstance(reference, ReferenceSpots) else self.encode_reference(reference)
        with torch.autocast(target.device.type, enabled=False):
            grey = at_least_float32(target)[:, :1]
            resized = self._resized(grey)
            full, shrunk = grey_lightness((grey + 1) / 2), grey_lightness((resized + 1) / 2)
            maps = self._features(resized)
            features = _centred(maps)
            plain = self._cells(features, shrunk)
            cells = self._compared(plain)
            compared = match_exposure(shrunk, code.exposure)
            shades = F.avg_pool2d(compared, CELL).flatten(1)
            appearance = self._appearance(compared, features[0])
            queries = self._queries(appearance)
            places, cosines = [], []
            for row in range(len(target)):
                own = ReferenceSpots(*(part[row if len(part) > 1 else 0] for part in code))
                carried, best = self.carry(cells[row], shades[row], queries[row], own)
                if self.metric is not None:  # the backbone's own features tell how suitable a reference is
                    best = best_cosines(plain[row, ::_SAMPLE], own.plain)
                places.append(carried)
                cosines.append(best.mean())
            trust = ramp(torch.stack(cosines), *_TRUST).view(-1, 1, 1, 1)
            carried = torch.stack(places).permute(0, 3, 2, 1).flatten(1, 2)  # (B, 3 · spots of a cell, cells)
            spots = F.avg_pool2d(shrunk, FINE)
            carried = F.fold(carried, spots.shape[-2:], CELL // FINE, stride=CELL // FINE)
            confidence = carried[:, 2:].clamp(0, 1)
            opinion = second_opinion(maps, code, shrunk)
            agreement = _local_agreement(opinion, spots.shape[-2:])
            chroma = _smoothed(spots, appearance, carried[:, :2], confidence, agreement)
            carried = trust * torch.cat([chroma, confidence], dim=1)
            carried = F.interpolate(carried, full.shape[-2:], mode="bilinear", align_corners=False)
            chroma = guided_filter(full, carried[:, :2])
            return Match(Carried(chroma, carried[:, 2:]), tuple(maps), opinion)

    def carry(self, cells: Tensor, shades: Tensor, queries: Tensor, reference: ReferenceSpots) -> tuple[Tensor, Tensor]:
        """Transfer one reference's colours to cells of one picture.

        Args:
            cells: unit feature vectors, ``(N, D)``.
            shades: L*/100 of each cell, ``(N,)``.
            queries: appearance of each cell's spots, ``(N, spots, C)``.
            reference: the code of one reference, without the dimension of the batch.

        Returns:
            a*, b* and confidence of each cell's spots, ``(N, spots, 3)``, and each cell's best cosine, ``(N,)``.
        """
        attention = self.attend(cells, shades, queries, reference)
        chroma = reference.spots[attention.cells][..., -2:].flatten(1, 2)
        mean = attention.weights @ chroma
        variance = attention.weights @ chroma.square().sum(dim=-1, keepdim=True) - mean.square().sum(-1, keepdim=True)
        similarity = attention.weights @ attention.spot_cosines
        disagreement = torch.exp(-variance.clamp(min=0).sqrt() / DISAGREEMENT)
        return torch.cat([mean, similarity.clamp(0, 1) * disagreement], dim=-1), attention.best

    def attend(
        self,
        cells: Tensor,
        shades: Tensor,
        queries: Tensor,
        reference: ReferenceSpots,
        log_prior: Tensor | None = None,
    ) -> SpotAttention:
        """Return the attention of cells over one reference; see :meth:`carry` and :meth:`attention`."""
        cosines = cells @ reference.features.T
        logits = TEMPERATURE * (cosines - PENALTY * (shades[:, None] - reference.lightness).abs())
        if log_prior is not None:
            logits = logits + log_prior
        coarse, chosen = logits.log_softmax(dim=1).topk(min(CANDIDATES, logits.shape[1]), dim=1)
        appearance = reference.spots[chosen][..., :-2]
        distances = torch.cdist(queries, appearance.flatten(1, 2))
        prior = coarse.repeat_interleave(appearance.shape[2], dim=1).unsqueeze(1)  # of a cell, for each of its spots
        weights = torch.softmax(-SHARPNESS * distances**2 + prior, dim=-1)
        return SpotAttention(chosen, weights, cosines.gather(1, chosen), cosines.amax(dim=1))

    @torch.no_grad()
    def view(self, picture: Tensor) -> View:
        """Return the features of a picture, sRGB ``(B, 3, H, W)`` in [-1, 1]; only its luminance matters."""
        return self._look(picture)[0]

    @torch.no_grad()
    def view_and_spots(self, picture: Tensor) -> tuple[View, ReferenceSpots]:
        """Return the results of :meth:`view` and :meth:`encode_reference`; the backbone runs once."""
        view, chroma, plain = self._look(picture)
        with torch.autocast(picture.device.type, enabled=False):
            spots = torch.cat([self._appearance(view.lightness, view.finest), F.avg_pool2d(chroma, FINE)], dim=1)
            per_cell = CELL // FINE
            window = per_cell + 2 * _MARGIN
            spots = F.unfold(F.pad(spots, (_MARGIN,) * 4, mode="replicate"), window, stride=per_cell)
            spots = spots.unflatten(1, (-1, window**2)).permute(0, 3, 2, 1).contiguous()
            shades = F.avg_pool2d(view.lightness, CELL).flatten(1)
            return view, ReferenceSpots(view.cells, shades, spots, _exposure(view.lightness), plain)

    def _look(self, picture: Tensor) -> tuple[View, Tensor, Tensor]:
        """Return the features of a picture, its a* and b* at the matching size, and its plain cells."""
        with torch.autocast(picture.device.type, enabled=False):
            lab = kornia.color.rgb_to_lab((self._resized(at_least_float32(picture)) + 1) / 2)
            lightness = lab[:, :1] / 100
            features = _centred(self._maps(lightness))
            plain = self._cells(features, lightness)
            return View(lightness, features[0], self._compared(plain)), lab[:, 1:], plain

    @torch.no_grad()
    def attention(
        self,
        view: View,
        cells: Tensor,
        reference: ReferenceSpots,
        compared: Tensor | None = None,
        log_prior: Tensor | None = None,
    ) -> SpotAttention:
        """Return the attention by which :meth:`forward` carries colours to some cells of one picture.

        Args:
            view: the target's, a batch of one.
            cells: numbers of the cells, by rows, ``(M,)``.
            reference: the code of one reference.
            compared: the target's L*/100 to compare with the reference's, ``(1, 1, H, W)``; None: brought to the
                reference's mean and standard deviation, as :meth:`forward` does.
            log_prior: added to the logits of the coarse attention, one for each cell of the reference, ``(N,)``.
        """
        with torch.autocast(view.lightness.device.type, enabled=False):
            if compared is None:
                compared = match_exposure(view.lightness, reference.exposure)
            shades = F.avg_pool2d(compared, CELL).flatten()[cells]
            queries = self._queries(self._appearance(compared, view.finest))[0, cells]
            own = ReferenceSpots(*(part[0] for part in reference))
            return self.attend(view.cells[0, cells], shades, queries, own, log_prior)

    def _compared(self, cells: Tensor) -> Tensor:
        """Return the features whose cosines are compared."""
        return cells if self.metric is None else self.metric(cells)

    def _resized(self, image: Tensor) -> Tensor:
        """Resize a picture to about ``side``² pixels, with sides that are multiples of 32."""
        height, width = image.shape[-2:]
        factor = self.side / math.sqrt(height * width)
        size = [max(1, round(length * factor / _MULTIPLE)) * _MULTIPLE for length in (height, width)]
        if size == [height, width]:
            return image
        return F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)

    def _maps(self, lightness: Tensor) -> Sequence[Tensor]:
        """Return the backbone's features of L*/100, ``(B, 1, H, W)``."""
        lab = torch.cat([lightness * 100, torch.zeros_like(lightness).expand(-1, 2, -1, -1)], dim=1)
        return self._features(kornia.color.lab_to_rgb(lab)[:, :1] * 2 - 1)

    def _features(self, grey: Tensor) -> Sequence[Tensor]:
        """Return the backbone's features of a grey picture, ``(B, 1, H, W)`` in [-1, 1]."""
        (backbone,) = self._backbone
        features: Sequence[Tensor] = backbone.to(grey.device)(grey.expand(-1, 3, -1, -1))
        return features

    @staticmethod
    def _cells(features: Sequence[Tensor], lightness: Tensor) -> Tensor:
        """Return the unit feature vectors of a picture's cells, ``(B, N, D)``."""
        grid = lightness.shape[-2] // CELL, lightness.shape[-1] // CELL
        levels = []
        for feature, weight in zip(features, _LEVELS, strict=True):
            finer = feature.shape[-1] > grid[1]
            resized = F.interpolate(feature, grid, mode="bilinear", align_corners=False, antialias=finer)
            levels.append(F.normalize(resized, dim=1) * weight)
        return torch.cat(levels, dim=1).flatten(2).transpose(1, 2) / math.sqrt(sum(w**2 for w in _LEVELS))

    @staticmethod
    def _queries(appearance: Tensor) -> Tensor:
        """Return the appearance of each cell's spots, ``(B, N, spots, C)``, contiguous for the products of cells."""
        per_cell = CELL // FINE
        spots = F.unfold(appearance, per_cell, stride=per_cell)
        return spots.unflatten(1, (-1, per_cell**2)).permute(0, 3, 2, 1).contiguous()

    @staticmethod
    def _appearance(lightness: Tensor, finest: Tensor) -> Tensor:
        """Return each spot's appearance, ``(B, C, H / 2, W / 2)``: luminance, its local statistics, and texture."""
        spots = F.avg_pool2d(lightness, FINE)
        appearance = [spots]
        for window in WINDOWS:
            mean, squares = window_mean(torch.cat([spots, spots.square()], dim=1), window).chunk(2, dim=1)
            variance = squares - mean.square()
            appearance += [mean, 2 * variance.clamp(min=0).sqrt()]
        texture = F.interpolate(finest, spots.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([*appearance, _TEXTURE * F.normalize(texture, dim=1)], dim=1)


@torch.no_grad()
def second_opinion(seen: Sequence[Tensor], reference: ReferenceSpots, lightness: Tensor) -> Opinion:
    """Transfer colours by meaning only: by the two coarsest maps, to cells of 16 pixels.

    The weights are a softmax of ``40 * cosine`` over all cells of the reference; luminance has no influence.

    Args:
        seen: the backbone's maps of the target.
        reference: the encoded reference of correspondence.
        lightness: the target's L*/100, ``(B, 1, H, W)``.
    """
    deep = [level - level.mean(dim=(2, 3), keepdim=True) for level in seen[-2:]]
    grid = deep[0].shape[-2:]
    queries = torch.cat([F.normalize(_resize(level, grid), dim=1) for level in deep], dim=1).flatten(2).transpose(1, 2)
    channels = [level.shape[1] for level in deep]
    keys = reference.plain[..., -sum(channels) :].split(channels, dim=-1)
    cells = torch.cat([F.normalize(part, dim=-1) for part in keys], dim=-1)
    cosines = queries @ cells.transpose(1, 2) / 2  # (B, cells of the target, of the reference)
    best = cosines.max(dim=2)
    sides = (torch.arange(side, device=cosines.device, dtype=cosines.dtype) for side in grid)
    places = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).flatten(0, 1)
    returned = cosines.argmax(dim=1).gather(1, best.indices)  # the cell of the target at the end of each round trip
    distance = (places[returned] - places).square().sum(dim=2)
    agreement = torch.exp(-distance / (2 * _RETURN**2))
    chroma = (_OPINION * cosines).softmax(dim=2) @ reference.spots[..., -2:].mean(dim=2)
    found = reference.lightness.expand(len(cosines), -1).gather(1, best.indices).unflatten(1, grid)[:, None]
    return Opinion(
        chroma.transpose(1, 2).unflatten(2, grid),
        best.values.unflatten(1, grid)[:, None],
        agreement.unflatten(1, grid)[:, None],
        _median((F.adaptive_avg_pool2d(lightness, (grid[0], grid[1])) - found).abs(), _SHADED),
    )


def _median(x: Tensor, side: int) -> Tensor:
    """Return the median in the window around each position of ``(B, 1, H, W)``; ``side`` is odd."""
    windows = F.unfold(F.pad(x, (side // 2,) * 4, mode="replicate"), side)
    return windows.median(dim=1).values.view_as(x)


def _resize(level: Tensor, size: torch.Size) -> Tensor:
    return level if level.shape[-2:] == size else F.interpolate(level, size, mode="bilinear", align_corners=False)


def _local_agreement(opinion: Opinion, size: torch.Size) -> Tensor:
    """Return how surely places have a counterpart in the reference, ``(B, 1, *size)`` in [0, 1]."""
    around = F.avg_pool2d(opinion.agreement, _AROUND, 1, _AROUND // 2, count_include_pad=False)
    return _resize(ramp(around, *AGREED), size)


def likeness(target: Tensor, reference: Tensor) -> float:
    """Return how much of a target a reference shows: the mean best cosine of its cells, at most 1.

    Args:
        target: the target's cells, ``(N, D)``, from :meth:`Correspondence.view`.
        reference: the reference's, ``(M, D)``.
    """
    return float(best_cosines(target, reference).mean())


def best_cosines(target: Tensor, reference: Tensor) -> Tensor:
    """Return the cosine of each cell of a target, ``(N, D)``, with the most similar one of a reference, ``(M, D)``."""
    return (target @ reference.T).amax(dim=1)


def join_spots(references: Sequence[ReferenceSpots]) -> ReferenceSpots:
    """Return one encoded reference with the places of several, each of one picture.

    The luminance of each is brought to their mean exposure, as a target's is to a reference's.
    """
    if len(references) == 1:
        return references[0]
    exposure = torch.stack([reference.exposure for reference in references]).mean(dim=0)
    mean, _ = exposure.unbind(1)
    lightness, spots = [], []
    for reference in references:
        own, _ = reference.exposure.unbind(1)
        gain = _gain(reference.exposure, exposure)
        lightness.append((reference.lightness - own) * gain + mean)
        shades = reference.spots.clone()
        shades[..., _SHADES] = (shades[..., _SHADES] - own) * gain + mean
        shades[..., _CONTRASTS] *= gain
        spots.append(shades)
    features = torch.cat([reference.features for reference in references], dim=1)
    plain = features
    if any(reference.plain is not reference.features for reference in references):
        plain = torch.cat([reference.plain for reference in references], dim=1)
    return ReferenceSpots(features, torch.cat(lightness, dim=1), torch.cat(spots, dim=1), exposure, plain)


def _centred(features: Sequence[Tensor]) -> list[Tensor]:
    """Return features freed of their means over the picture."""
    return [feature - feature.mean(dim=(2, 3), keepdim=True) for feature in features]


def _smoothed(lightness: Tensor, appearance: Tensor, chroma: Tensor, confidence: Tensor, agreement: Tensor) -> Tensor:
    """Replace outliers among spots: by those that look alike where a place is not sure of its counterpart.

    Args:
        lightness: see :func:`~pdnla.network.smoothing.smooth_outliers`.
        appearance: see :func:`~pdnla.network.smoothing.smooth_by_likeness`.
        chroma: see there.
        confidence: see there.
        agreement: result of :func:`_local_agreement`.
    """
    likely = smooth_by_likeness(appearance, chroma, confidence)
    return smooth_outliers(lightness, torch.lerp(likely, chroma, agreement), confidence, _WINDOW, rounds=1)


def _exposure(lightness: Tensor) -> Tensor:
    """Return mean and standard deviation of each picture, ``(B, 2)``."""
    deviation, mean = torch.std_mean(lightness.flatten(1), dim=1)
    return torch.stack([mean, deviation], dim=1)


def match_exposure(lightness: Tensor, new: Tensor, own: Tensor | None = None) -> Tensor:
    """Bring luminance, ``(B, 1, H, W)``, to a mean and a standard deviation (changed at most by a factor of 2).

    Args:
        lightness: L*/100.
        new: the mean and the standard deviation that it gets, ``(B, 2)``.
        own: those that it has; None: over the whole picture.
    """
    own = _exposure(lightness) if own is None else own
    mean, new_mean, gain = (x[..., None, None, None] for x in (own[:, 0], new[:, 0], _gain(own, new)))
    return (lightness - mean) * gain + new_mean


def _gain(exposure: Tensor, new: Tensor) -> Tensor:
    """Return the factor that brings the standard deviation of ``exposure`` to that of ``new``, ``(B,)``."""
    return (new[:, 1] / exposure[:, 1].clamp(min=1e-3)).clamp(0.5, 2)
