"""Files that were sound until something changed some of their bytes."""

from hypothesis import strategies as st


@st.composite
def broken(draw: st.DrawFn, of: bytes) -> bytes:
    """Some bytes changed, taken out or put in."""
    data = bytearray(of)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        change = draw(st.sampled_from(["flip", "set", "cut", "insert", "copy"]))
        match change:
            case "flip":
                data[place : place + 1] = bytes(
                    byte ^ (1 << draw(st.integers(0, 7))) for byte in data[place : place + 1]
                )
            case "set":
                data[place : place + 4] = draw(
                    st.sampled_from([bytes(4), b"\xff" * 4, b"\x00\x00\x00\x80", b"PK\x05\x06"])
                )
            case "cut":
                del data[place : place + draw(st.integers(1, 30))]
            case "insert":
                data[place:place] = draw(st.binary(max_size=10))
            case _:
                other = draw(st.integers(0, max(len(data) - 1, 0)))
                data[place : place + 8] = data[other : other + 8]
    return bytes(data)
