"""Networks for other runtimes: ONNX files, and packages that torch compiles ahead of time.

A file holds everything from the two pictures, the edges that the encoders see included, to ``mid`` and ``out``. Batch
and sizes are free; heights and widths are multiples of 16.
"""

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pdnla.checkpoints import SOURCE, printable
from pdnla.devices import PRECISIONS
from pdnla.errors import UserError
from pdnla.fast import for_inference
from pdnla.fast.ops import torch_only
from pdnla.files import replacing
from pdnla.models import describe, model_of, read_description
from pdnla.network import STRIDE, Colorization
from pdnla.pretrained import is_exported

log = logging.getLogger(__name__)

FORMAT = "pdnla"
SIZES = ((1, 64, 64, 64, 64), (2, 96, 48, 64, 128), (1, 16, 32, 48, 16), (3, 80, 112, 80, 112), (1, 256, 208, 192, 272))
"""Batch, the target's height and width and the reference's at which an exported file is checked."""
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.25, "float16": 0.06}
"""How far ``out`` may be from the network's: halves round to 2^-9 and 2^-11, times what a hundred layers make of it."""
INPUTS, OUTPUTS = ("target", "reference"), ("mid", "out")
_LARGEST = 4096  # multiples of 16 on a side
_OPSET = 20
_TRACED = (2, 64, 96, 80, 48)


class Exported(nn.Module):
    """A network in a file of another runtime, with the interface of a model (:mod:`pdnla.models`).

    Args:
        path: the file.
        about: what it says of itself: ``format``, ``model``, ``arguments``, ``module``, ``precision``, ``source``.
        device: where it runs.

    Attributes:
        description: which network it is.
        precision: what it computes in.
        source: where its weights came from.

    Raises:
        UserError: it does not say that.
    """

    def __init__(self, path: str | Path, about: Mapping[str, str], device: torch.device) -> None:
        super().__init__()
        self.path, self.device = Path(path), device
        if about.get("format") != FORMAT:
            raise UserError(f"{path}: holds no PDNLA network; pass a file that pdnla-export wrote")
        try:
            # Version 0.1 wrote the width alone.
            arguments = json.loads(about["arguments"]) if "arguments" in about else {"channel": int(about["channel"])}
            self.description = read_description({"module": "", **about, "arguments": arguments})
            self.precision, self.source = about["precision"], printable(about["source"], SOURCE)
        except (KeyError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: does not say what network it is; export it again") from error

    def encode_reference(self, reference: Tensor) -> Tensor:
        """Return the reference: an exported network is one piece and encodes it with each target."""
        return reference

    def forward(self, target: Tensor, reference: Tensor) -> Colorization:
        """Colour as :meth:`pdnla.network.PDNLA.forward` does; one reference serves a batch of targets."""
        pictures = (target, reference.expand(target.shape[0], -1, -1, -1))
        return Colorization(*(x.to(target) for x in self.run(*(x.float().contiguous() for x in pictures))))

    def run(self, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``mid`` and ``out`` of pictures in float32."""
        raise NotImplementedError


class OnnxNetwork(Exported):
    """A network in an ONNX file, run by ONNX Runtime.

    Args:
        path: the file.
        device: the CPU or a CUDA device; None for CUDA where torch and ONNX Runtime have it, else the CPU.

    Raises:
        UserError: ONNX Runtime is not installed or does not have the device, or the file is missing, damaged or of
            something else.
    """

    def __init__(self, path: str | Path, device: torch.device | None = None) -> None:
        runtime = _import("onnxruntime", f"{path} is run by ONNX Runtime")
        _check_there(path)
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        has_cuda = "CUDAExecutionProvider" in runtime.get_available_providers()
        chosen = device or torch.device("cuda" if has_cuda and torch.cuda.is_available() else "cpu")
        if chosen.type not in ("cpu", "cuda") or (chosen.type == "cuda" and not has_cuda):
            raise _no_such_provider(path, chosen)
        providers: list[Any] = ["CPUExecutionProvider"]
        if chosen.type == "cuda":
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": chosen.index or 0}))
        try:
            session = runtime.InferenceSession(str(path), options, providers=providers)
            about = session.get_modelmeta().custom_metadata_map
        except Exception as error:  # the runtime's own, of many classes
            raise UserError(f"{path}: is damaged or not an ONNX file; export it again") from error
        if chosen.type == "cuda" and "CUDAExecutionProvider" not in session.get_providers():  # its library is missing
            if device is not None:
                raise _no_such_provider(path, chosen)
            chosen = torch.device("cpu")
        if device is None and chosen.type == "cpu" and torch.cuda.is_available():
            log.warning("%s runs on the CPU: ONNX Runtime has no CUDA here (pip install onnxruntime-gpu)", path)
        super().__init__(path, about, chosen)
        self._session: Any = session

    def run(self, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``mid`` and ``out``."""
        pictures = {name: x.cpu().numpy() for name, x in zip(INPUTS, (target, reference), strict=True)}
        mid, out = (torch.from_numpy(x) for x in self._session.run(OUTPUTS, pictures))
        return mid, out


class CompiledNetwork(Exported):
    """A network that torch compiled ahead of time (AOTInductor) for this kind of machine's CPU.

    Loading runs the machine code in the file: load only files that you made or trust.

    Args:
        path: the file.
        device: the CPU.

    Raises:
        UserError: the file is missing, damaged or of something else, or was compiled for another machine or device.
    """

    def __init__(self, path: str | Path, device: torch.device | None = None) -> None:
        from torch._inductor import aoti_load_package

        _check_there(path)
        if device is not None and device.type != "cpu":
            raise UserError(f"--device {device}: {path} was compiled for the CPU; use --device cpu, or the weights")
        try:
            package = aoti_load_package(str(path))
            about = json.loads(package.get_metadata()["pdnla"])
        except Exception as error:  # torch's own, of many classes
            raise UserError(
                f"{path}: is damaged, or compiled for another machine or version of torch; export it again here"
            ) from error
        super().__init__(path, about, torch.device("cpu"))
        self._package = package

    def run(self, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``mid`` and ``out``."""
        mid, out = self._package(target.cpu(), reference.cpu())
        return mid, out


def load_exported(path: str | Path, device: torch.device | None = None) -> Exported:
    """Return the network in a file that :func:`export` wrote.

    Args:
        path: the file.
        device: where it runs; None for the best device that its runtime has here.

    Raises:
        UserError: the file cannot be read, or its runtime does not have the device.
    """
    network = OnnxNetwork if Path(path).suffix == ".onnx" else CompiledNetwork
    return network(path, device)


class Parity(NamedTuple):
    """The largest and the mean difference of ``out``, in [-1, 1], from the network's in float32."""

    largest: float
    mean: float


def export(network: nn.Module, path: str | Path, precision: str = "float32", source: str = "unknown") -> Parity:
    """Write a network to a file of another runtime, whole or not at all, checked against the network.

    Args:
        network: of a model that can be exported (:class:`pdnla.models.Model`).
        path: the file, ending in ``.onnx``, or in ``.pt2`` for a package compiled ahead of time on this machine.
        precision: ``float32``, ``float16`` or, compiled, ``bfloat16``: what convolutions and products are computed in.
        source: where the weights came from.

    Returns:
        The differences from the network over :data:`SIZES`.

    Raises:
        UserError: the network cannot be exported, its runtime is not installed, or the file differs from the network.
    """
    path = Path(path)
    if not is_exported(path):
        raise UserError(f"{path}: must end in .onnx or .pt2")
    if path.suffix == ".onnx" and precision == "bfloat16":
        raise UserError("--precision bfloat16: ONNX Runtime computes in it nowhere; use float16 or float32")
    model, description = model_of(network), describe(network)
    if model.unexportable:
        raise UserError(
            f"{model.name} cannot be exported: {model.unexportable}; export weights of another model, such as"
            " pdnla_tiny"
        )
    about = {
        "format": FORMAT,
        "model": description.model,
        "arguments": json.dumps(description.arguments),
        "module": description.module,
        "precision": precision,
        "source": source,
    }
    if path.suffix == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            _import(package, "ONNX files are written with onnx, onnxscript and onnxruntime")
    network = copy.deepcopy(network).cpu().eval()
    program = trace(network, PRECISIONS[precision])
    with replacing(path) as temporary:
        (write_onnx if path.suffix == ".onnx" else write_compiled)(program, temporary, about)
        parity = compare(for_inference(network), load_exported(temporary, torch.device("cpu")))
        if not parity.largest <= TOLERANCES[precision]:
            raise UserError(
                f"{path}: its results differ by {parity.largest:.2g} from the network's, which is more than rounding;"
                " try --precision float32"
            )
    return parity


def trace(network: nn.Module, dtype: torch.dtype = torch.float32) -> torch.export.ExportedProgram:
    """Return the graph of a network on the CPU for any batch and size, computing in ``dtype``."""
    batch = torch.export.Dim("batch", max=4096)
    names = ("target_height", "target_width", "reference_height", "reference_width")
    height, width, other_height, other_width = (STRIDE * torch.export.Dim(f"{n}_16", max=_LARGEST) for n in names)
    shapes = ({0: batch, 2: height, 3: width}, {0: batch, 2: other_height, 3: other_width})
    with torch.no_grad(), torch_only(), _quiet():
        whole = _Whole(for_inference(network, dtype), dtype).eval()
        return torch.export.export(whole, pictures(*_TRACED), dynamic_shapes=shapes, strict=False)


class _Whole(nn.Module):
    """The network from two pictures in float32 to two in float32."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        torch._check(target.shape[0] == reference.shape[0])
        with torch.autocast("cpu", self.dtype, enabled=self.dtype is not torch.float32):
            mid, out = self.network(target, reference)
        return mid.float(), out.float()


def pictures(batch: int, height: int, width: int, other_height: int, other_width: int) -> tuple[Tensor, Tensor]:
    """Return a grey target and a reference in colour in [-1, 1], smooth with some grain, the same every time."""
    generator = torch.Generator().manual_seed(height * width)

    def picture(channels: int, size: tuple[int, int]) -> Tensor:
        coarse = torch.rand(batch, channels, size[0] // 8, size[1] // 8, generator=generator)
        smooth = nn.functional.interpolate(coarse, size=size, mode="bilinear")
        grain = torch.rand(smooth.shape, generator=generator)
        return ((0.9 * smooth + 0.1 * grain) * 2 - 1).expand(-1, 3, -1, -1).contiguous()

    return picture(1, (height, width)), picture(3, (other_height, other_width))


@torch.inference_mode()
def compare(network: nn.Module, other: Exported) -> Parity:
    """Return how far the results of an exported network are from the network's."""
    differences = []
    for size in SIZES:
        target, reference = pictures(*size)
        difference = other(target, reference).out - network(target, reference).out
        differences.append(difference.abs().flatten())
    together = torch.cat(differences)
    return Parity(float(together.max()), float(together.mean()))


def write_onnx(program: torch.export.ExportedProgram, path: Path, about: Mapping[str, str]) -> None:
    """Write a traced network as ONNX, with what the file is to say of itself."""
    with _quiet():
        written: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=_OPSET,
            input_names=INPUTS,
            output_names=OUTPUTS,
            external_data=False,
            verbose=False,
        )
    written.model.metadata_props.update(about)
    written.model.producer_name = "pdnla"
    written.save(str(path), external_data=False)


def write_compiled(program: torch.export.ExportedProgram, path: Path, about: Mapping[str, str]) -> None:
    """Compile a traced network ahead of time for this machine's CPU, with what the file is to say of itself.

    Raises:
        UserError: there is no C++ compiler.
    """
    from torch._inductor import aoti_compile_and_package

    configs = {"aot_inductor.metadata": {"pdnla": json.dumps(dict(about))}}
    try:
        with _quiet():
            aoti_compile_and_package(program, package_path=str(path), inductor_configs=configs)
    except Exception as error:
        if "compiler" in str(error).lower():
            raise UserError(f"{path}: compiling needs a C++ compiler, such as g++; install one") from error
        raise


def _no_such_provider(path: str | Path, device: torch.device) -> UserError:
    return UserError(
        f"--device {device}: ONNX Runtime, which runs {path}, does not have it here; use --device cpu, or for CUDA"
        " pip install onnxruntime-gpu"
    )


def _check_there(path: str | Path) -> None:
    if not Path(path).is_file():
        raise UserError(f"{path}: there is no such weights file; check the path")


def _import(package: str, why: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f'{why}, and {package} is not installed; pip install "pdnla[export]"') from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporters say of their own workings to themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
