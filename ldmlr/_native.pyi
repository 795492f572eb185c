"""Types of the extension; csrc/bindings.cpp."""

compiler: str

def philox4x32(c0: int, c1: int, c2: int, c3: int, k0: int, k1: int) -> tuple[int, int, int, int]: ...
def standard_normal(
    seed: int, first_row: int, rows: int, dim: int, stream: int, step: int, out: int
) -> None: ...
