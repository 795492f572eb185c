"""The tables on speed, memory and deviation: what each shows."""

from __future__ import annotations

from collections.abc import Callable

from pivot import Column, Line, Summary, Table, count, error, markdown, percent, rate, rendered, times

DEFAULT = {"dim": "64", "hidden": "128"}
# Processors with the sampler's experiment, widest instruction set and its types.
PROCESSORS = {
    "sampler-xeon-amx": ("Xeon with AMX", "amx", ("float32", "bfloat16", "int8")),
    "sampler-zen5": ("Zen 5", "avx512bf16", ("float32", "bfloat16", "int8")),
    "sampler-xeon": ("Xeon with AVX-512 VNNI", "avx512vnni", ("float32", "int8")),
}
KERNELS = ("resident", "streamed", "warpgroup", "bulk", "layered")


def speed(summary: Summary) -> str:
    """Return rows/s of the default model per processor and type, beside PyTorch."""
    gpu = {
        "experiment": "h200-baselines", "dtype": "bfloat16",
        "eager": "against eager bfloat16", "compiled": "against torch.compile in a graph",
    }  # fmt: skip
    found = [Line(("H200", "bfloat16"), gpu)]
    for experiment, (processor, _, types) in PROCESSORS.items():
        for dtype in types:
            fields = {
                "experiment": experiment, "dtype": dtype,
                "eager": "against eager float32", "compiled": "against torch.compile bfloat16",
            }  # fmt: skip
            found.append(Line((f"{processor}, 2 cores", dtype), fields))
    columns = [
        Column("rows/s", {"what": "{eager}", "quantity": "rows_per_s"}, rate),
        Column("eager PyTorch", {"what": "{eager}", "quantity": "baseline_rows_per_s"}, rate),
        Column("times", {"what": "{eager}", "quantity": "times"}, times),
        Column("times `torch.compile`", {"what": "{compiled}", "quantity": "times"}, times),
    ]
    return rendered(Table(("processor", "type"), found, columns, DEFAULT), summary)


def ceilings(summary: Summary) -> str:
    """Return shares of the multiply-add peak, one thread."""
    found = []
    for experiment, (processor, isa, types) in PROCESSORS.items():
        older = [("float32", "baseline"), ("float32", "avx2")]
        for dtype, kernels in [*older, *((dtype, isa) for dtype in types)]:
            fields = {"experiment": experiment, "dtype": dtype, "isa": kernels}
            found.append(Line((processor, kernels, dtype), fields))
    sizes = (("64", "64"), ("64", "128"), ("64", "256"), ("512", "512"), ("512", "1024"))
    columns = [
        Column(f"D {dim}, H {hidden}", {"dim": dim, "hidden": hidden}, percent) for dim, hidden in sizes
    ]
    fields = {"what": "share of the multiply-add peak", "quantity": "fraction"}
    return rendered(Table(("processor", "kernels", "type"), found, columns, fields), summary)


def cuda_kernels(summary: Summary) -> str:
    """Return rows/s of each CUDA kernel per size, the best slab, and the best share of a large product."""
    share = "share of torch's bfloat16 product"
    rows = [
        row
        for experiment in ("h200-sample", "h200-slabs")
        for row in summary.all({"experiment": experiment, "what": share})
    ]
    sizes = sorted({(int(row["dim"]), int(row["hidden"])) for row in rows})
    found = []
    for dim, hidden in sizes:
        here = [row for row in rows if (row["dim"], row["hidden"]) == (str(dim), str(hidden))]
        cells = []
        for kernel in KERNELS:
            rates = [row for row in here if row["isa"] == kernel and row["quantity"] == "rows_per_s"]
            cells.append(f"{max(float(row['mean']) for row in rates) / 1e6:.3g}" if rates else "")
        best = max((row for row in here if row["quantity"] == "fraction"), key=lambda row: float(row["mean"]))
        found.append([f"D {dim}, H {hidden}", *cells, percent(best)])
    return markdown(("million rows/s", *KERNELS, "best share of a product"), found)


def deviation(summary: Summary) -> str:
    """Return the deviation of a row from float64, in standard deviations of the rows."""
    kinds = dict.fromkeys((row["isa"], row["dtype"]) for row in summary.by_experiment["deviation"])
    found = [Line((isa, dtype), {"isa": isa, "dtype": dtype}) for isa, dtype in kinds]
    columns = [
        Column(f"{label}, D {dim}, H {hidden}", {"dim": dim, "hidden": hidden, "quantity": quantity}, error)
        for dim, hidden in (("64", "128"), ("512", "512"))
        for quantity, label in (("error", "maximum"), ("error_rms", "RMS"))
    ]
    return rendered(Table(("kernels", "type"), found, columns, {"experiment": "deviation"}), summary)


def trials(experiment: str) -> Callable[[Summary], str]:
    """Return the table of forms of a kernel, in GFLOP/s per size."""

    def render(summary: Summary) -> str:
        found = [Line((setting,), {"setting": setting}) for setting in summary.settings(experiment)]
        sizes = dict.fromkeys((row["dim"], row["hidden"]) for row in summary.by_experiment[experiment])
        columns = [
            Column(f"D {dim}, H {hidden}", {"dim": dim, "hidden": hidden}, rate) for dim, hidden in sizes
        ]
        # The error of an approximation does not depend on the size.
        columns.append(
            Column("error, half units", {**columns[0].fields, "quantity": "error_half_ulps"}, rate)
        )
        fields = {"experiment": experiment, "quantity": "gflop_per_s"}
        return rendered(Table(("GFLOP/s, one thread",), found, columns, fields), summary)

    return render


def stage1(summary: Summary) -> str:
    """Return training steps of ResNet-32 by type and layout."""
    processors = {"stage1-xeon": "Xeon without bfloat16", "stage1-xeon-amx": "Xeon with AMX"}
    found = [
        Line((processor, setting), {"experiment": experiment, "setting": setting})
        for experiment, processor in processors.items()
        for setting in summary.settings(experiment)
    ]
    columns = [
        Column("images/s", {"quantity": "images_per_s"}, rate),
        Column("times the first", {"quantity": "ratio"}, times),
        Column("share of a large product", {"quantity": "fraction"}, percent),
    ]
    return rendered(Table(("processor", "variant"), found, columns, {"what": "training step"}), summary)


def memory(summary: Summary) -> str:
    """Return the peak memory of generation to disk and of training."""
    found = [
        Line((setting,), {"experiment": "memory", "setting": setting})
        for setting in summary.settings("memory")
    ]
    columns = [
        Column("peak, MB", {"quantity": "peak_mb"}, rate),
        Column("seconds", {"quantity": "seconds"}, rate),
    ]
    return rendered(Table(("work",), found, columns), summary)


def latent_vs_image(summary: Summary) -> str:
    """Return a sampling step of a latent beside one of an image."""
    kinds = dict.fromkeys(row["what"] for row in summary.by_experiment["latent-vs-image"])
    found = [Line((what,), {"what": what}) for what in kinds]
    columns = [
        Column("operations", {"quantity": "operations"}, count),
        Column("bytes", {"quantity": "bytes"}, count),
        Column("microseconds", {"quantity": "microseconds"}, rate),
    ]
    return rendered(Table(("a row and a step",), found, columns, {"experiment": "latent-vs-image"}), summary)


def fleet(summary: Summary) -> str:
    """Return the simulated time of a billion rows on many machines, beside what each resource alone takes."""
    found = [Line((setting,), {"setting": setting}) for setting in summary.settings("fleet")]
    names = {
        "until the manifest is there": "all there", "until all shards are there": "shards there",
        "drawing": "drawing", "disks": "disks", "network cards": "network", "object storage": "storage",
        "driver": "driver", "manifest": "manifest",
    }  # fmt: skip
    columns = [Column(head, {"what": what, "quantity": "seconds"}, rate) for what, head in names.items()]
    columns.append(Column("repeated shards", {"what": "repeated shards", "quantity": "operations"}, count))
    columns.append(Column("lost work", {"what": "lost work", "quantity": "fraction"}, percent))
    return rendered(Table(("seconds",), found, columns, {"experiment": "fleet"}), summary)


TABLES: dict[str, Callable[[Summary], str]] = {
    "speed": speed,
    "ceilings": ceilings,
    "cuda-kernels": cuda_kernels,
    "deviation": deviation,
    "trials-silu": trials("trials-silu"),
    "trials-tile-rows": trials("trials-tile-rows"),
    "trials-int8": trials("trials-int8"),
    "trials-amx": trials("trials-amx"),
    "stage1": stage1,
    "memory": memory,
    "latent-vs-image": latent_vs_image,
    "fleet": fleet,
}
