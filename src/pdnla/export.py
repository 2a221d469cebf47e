"""Networks for other runtimes: ONNX files, and packages that torch compiles ahead of time.

A file holds everything from the two pictures to ``mid`` and ``out``, edge detection included. Batch size, heights and
widths are free; heights and widths are multiples of 16.
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
"""Batch sizes, heights and widths of target and reference at which an exported file is checked."""
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.25, "float16": 0.06}
"""Largest accepted error of ``out``: half precision rounds to 2^-9 and 2^-11, and a hundred layers amplify it."""
INPUTS, OUTPUTS = ("target", "reference"), ("mid", "out")
_LARGEST = 4096  # multiples of 16 on a side
_OPSET = 20
_TRACED = (2, 64, 96, 80, 48)


class Exported(nn.Module):
    """A network in a file of another runtime, with the interface of a model (:mod:`pdnla.models`).

    Args:
        path: the file.
        metadata: the file's metadata: ``format``, ``model``, ``arguments``, ``module``, ``precision``, ``source``.
        device: the device it runs on.

    Attributes:
        description: the network's model and arguments.
        precision: the number format of its computations.
        source: the source of its weights.

    Raises:
        UserError: the metadata are missing or damaged.
    """

    def __init__(self, path: str | Path, metadata: Mapping[str, str], device: torch.device) -> None:
        super().__init__()
        self.path, self.device = Path(path), device
        if metadata.get("format") != FORMAT:
            raise UserError(f"{path}: holds no PDNLA network; pass a file that pdnla-export wrote")
        try:
            # Version 0.1 wrote only the width.
            arguments = (
                json.loads(metadata["arguments"]) if "arguments" in metadata else {"channel": int(metadata["channel"])}
            )
            self.description = read_description({"module": "", **metadata, "arguments": arguments})
            self.precision, self.source = metadata["precision"], printable(metadata["source"], SOURCE)
        except (KeyError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: does not name its network; export it again") from error

    def encode_reference(self, reference: Tensor) -> Tensor:
        """Return the reference itself: an exported network encodes it again with each target."""
        return reference

    def forward(self, target: Tensor, reference: Tensor) -> Colorization:
        """Colour targets as :meth:`pdnla.network.PDNLA.forward` does; one reference serves a batch of targets."""
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
        UserError: ONNX Runtime is not installed or lacks the device, or the file is missing, damaged or not a network
            of this package.
    """

    def __init__(self, path: str | Path, device: torch.device | None = None) -> None:
        runtime = _import("onnxruntime", f"{path} needs ONNX Runtime")
        _check_exists(path)
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
            metadata = session.get_modelmeta().custom_metadata_map
        except Exception as error:  # the runtime raises many classes
            raise UserError(f"{path}: is damaged or not an ONNX file; export it again") from error
        if chosen.type == "cuda" and "CUDAExecutionProvider" not in session.get_providers():  # its library is missing
            if device is not None:
                raise _no_such_provider(path, chosen)
            chosen = torch.device("cpu")
        if device is None and chosen.type == "cpu" and torch.cuda.is_available():
            log.warning("%s runs on the CPU: ONNX Runtime has no CUDA here (pip install onnxruntime-gpu)", path)
        super().__init__(path, metadata, chosen)
        self._session: Any = session

    def run(self, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``mid`` and ``out``."""
        pictures = {name: x.cpu().numpy() for name, x in zip(INPUTS, (target, reference), strict=True)}
        mid, out = (torch.from_numpy(x) for x in self._session.run(OUTPUTS, pictures))
        return mid, out


class CompiledNetwork(Exported):
    """A network that torch compiled ahead of time (AOTInductor) for this kind of machine's CPU.

    Loading executes the machine code in the file: load only files that you made or trust.

    Args:
        path: the file.
        device: the CPU.

    Raises:
        UserError: the file is missing, damaged, no network of this package, or compiled for another machine or device.
    """

    def __init__(self, path: str | Path, device: torch.device | None = None) -> None:
        from torch._inductor import aoti_load_package

        _check_exists(path)
        if device is not None and device.type != "cpu":
            raise UserError(f"--device {device}: {path} was compiled for the CPU; use --device cpu, or the weights")
        try:
            package = aoti_load_package(str(path))
            metadata = json.loads(package.get_metadata()["pdnla"])
        except Exception as error:  # torch raises many classes
            raise UserError(
                f"{path}: is damaged, or compiled for another machine or version of torch; export it again here"
            ) from error
        super().__init__(path, metadata, torch.device("cpu"))
        self._package = package

    def run(self, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``mid`` and ``out``."""
        mid, out = self._package(target.cpu(), reference.cpu())
        return mid, out


def load_exported(path: str | Path, device: torch.device | None = None) -> Exported:
    """Return the network in a file that :func:`export` wrote.

    Args:
        path: the file.
        device: the device it runs on; None for the best device that its runtime supports here.

    Raises:
        UserError: the file cannot be read, or its runtime does not have the device.
    """
    network = OnnxNetwork if Path(path).suffix == ".onnx" else CompiledNetwork
    return network(path, device)


class Parity(NamedTuple):
    """The largest and the mean difference of ``out``, in [-1, 1], between a file and the network in float32."""

    largest: float
    mean: float


def export(network: nn.Module, path: str | Path, precision: str = "float32", source: str = "unknown") -> Parity:
    """Write a network to a file of another runtime, atomically, after checking it against the network.

    Args:
        network: an instance of a model that can be exported (:class:`pdnla.models.Model`).
        path: the file, ending in ``.onnx``, or in ``.pt2`` for a package compiled ahead of time on this machine.
        precision: number format of convolutions and products: ``float32``, ``float16`` or, for ``.pt2``,
            ``bfloat16``.
        source: the source of the weights.

    Returns:
        The differences from the network over :data:`SIZES`.

    Raises:
        UserError: the network cannot be exported, its runtime is not installed, or the file differs from the network.
    """
    path = Path(path)
    if not is_exported(path):
        raise UserError(f"{path}: must end in .onnx or .pt2")
    if path.suffix == ".onnx" and precision == "bfloat16":
        raise UserError("--precision bfloat16: ONNX Runtime does not support it; use float16 or float32")
    model, description = model_of(network), describe(network)
    if model.unexportable:
        raise UserError(
            f"{model.name} cannot be exported: {model.unexportable}; export weights of another model, such as"
            " pdnla_tiny"
        )
    metadata = {
        "format": FORMAT,
        "model": description.model,
        "arguments": json.dumps(description.arguments),
        "module": description.module,
        "precision": precision,
        "source": source,
    }
    if path.suffix == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            _import(package, "writing an ONNX file needs onnx, onnxscript and onnxruntime")
    network = copy.deepcopy(network).cpu().eval()
    program = trace(network, PRECISIONS[precision])
    with replacing(path) as temporary:
        (write_onnx if path.suffix == ".onnx" else write_compiled)(program, temporary, metadata)
        parity = compare(for_inference(network), load_exported(temporary, torch.device("cpu")))
        if not parity.largest <= TOLERANCES[precision]:
            raise UserError(
                f"{path}: its results differ from the network's by {parity.largest:.2g}, more than rounding explains;"
                " try --precision float32"
            )
    return parity


def trace(network: nn.Module, dtype: torch.dtype = torch.float32) -> torch.export.ExportedProgram:
    """Return the graph of a network on the CPU for any batch size, height and width, computing in ``dtype``."""
    batch = torch.export.Dim("batch", max=4096)
    names = ("target_height", "target_width", "reference_height", "reference_width")
    height, width, other_height, other_width = (STRIDE * torch.export.Dim(f"{n}_16", max=_LARGEST) for n in names)
    shapes = ({0: batch, 2: height, 3: width}, {0: batch, 2: other_height, 3: other_width})
    with torch.no_grad(), torch_only(), _quiet():
        whole = _Float32Interface(for_inference(network, dtype), dtype).eval()
        return torch.export.export(whole, pictures(*_TRACED), dynamic_shapes=shapes, strict=False)


class _Float32Interface(nn.Module):
    """The network with pictures in float32 as its inputs and outputs."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        torch._check(target.shape[0] == reference.shape[0])
        with torch.autocast("cpu", self.dtype, enabled=self.dtype is not torch.float32):
            mid, out = self.network(target, reference)
        return mid.float(), out.float()


def pictures(batch: int, height: int, width: int, other_height: int, other_width: int) -> tuple[Tensor, Tensor]:
    """Return a grey target and a colour reference in [-1, 1], smooth with some noise, the same at every call."""
    generator = torch.Generator().manual_seed(height * width)

    def picture(channels: int, size: tuple[int, int]) -> Tensor:
        coarse = torch.rand(batch, channels, size[0] // 8, size[1] // 8, generator=generator)
        smooth = nn.functional.interpolate(coarse, size=size, mode="bilinear")
        grain = torch.rand(smooth.shape, generator=generator)
        return ((0.9 * smooth + 0.1 * grain) * 2 - 1).expand(-1, 3, -1, -1).contiguous()

    return picture(1, (height, width)), picture(3, (other_height, other_width))


@torch.inference_mode()
def compare(network: nn.Module, other: Exported) -> Parity:
    """Return the differences between the results of an exported network and those of the network."""
    differences = []
    for size in SIZES:
        target, reference = pictures(*size)
        difference = other(target, reference).out - network(target, reference).out
        differences.append(difference.abs().flatten())
    together = torch.cat(differences)
    return Parity(float(together.max()), float(together.mean()))


def write_onnx(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a traced network as ONNX, with metadata.

    Constants are folded and equal nodes merged. The exporter's own optimisation also tries onnxscript's rewrite rules,
    which gain nothing in these graphs and take as long as all else.
    """
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass
    from onnxscript import optimizer

    with _quiet():
        written: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=_OPSET,
            input_names=INPUTS,
            output_names=OUTPUTS,
            external_data=False,
            verbose=False,
            optimize=False,
        )
        optimizer.fold_constants(written.model)
        optimizer.remove_unused_nodes(written.model)
        CommonSubexpressionEliminationPass()(written.model)
    written.model.metadata_props.update(metadata)
    written.model.producer_name = "pdnla"
    written.save(str(path), external_data=False)


def write_compiled(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Compile a traced network ahead of time for this machine's CPU and write it, with metadata.

    Raises:
        UserError: there is no C++ compiler.
    """
    from torch._inductor import aoti_compile_and_package

    configs = {"aot_inductor.metadata": {"pdnla": json.dumps(dict(metadata))}}
    try:
        with _quiet():
            aoti_compile_and_package(program, package_path=str(path), inductor_configs=configs)
    except Exception as error:
        if "compiler" in str(error).lower():
            raise UserError(f"{path}: compiling needs a C++ compiler, such as g++; install one") from error
        raise


def _no_such_provider(path: str | Path, device: torch.device) -> UserError:
    return UserError(
        f"--device {device}: ONNX Runtime, which runs {path}, does not support it here; use --device cpu, or for CUDA"
        " pip install onnxruntime-gpu"
    )


def _check_exists(path: str | Path) -> None:
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
    """Silence the exporters' log messages and warnings."""
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
