"""The reader of the devkit's table, on a file that SciPy 1.17 has written."""

import base64
import contextlib
import random
import struct
import zlib

import pytest

from preprocess.sources.imagenet.matlab import HEADER, read_structs
from tests.helpers.imagenet import matlab

# scipy.io.savemat(file, {"other": eye(3), "synsets": ...}, do_compression=True)
SCIPY = base64.b85decode(
    "O+i#lK|&xkE-)ZXK~ybfX>4U6P;6mzW^ZzBIv{Xwb7^=iAVYFxVRU6=Aa8CuAX9a2AWm;~ATl{1F)}(aH###jATlsAHUIzs00000000000000000"
    "000000000000000000000000000000000000000000000Bu&4*&oFF#rGnc%0*7U|?tfVm2V=fYKnq3gt6HF(Xtgza%5I2uO1Ru?GVTe6VN03kb^"
    "t0Ht{bybk~X0E+<t0C=43R6$C^KotFr)mnv8UAdeCbdl6(S~nI{uplBTbs0iBCWGljGE=lS@Bp603%Kz(9>JM*qUjh2nxdP2_?h`Xyq7=kC20V_+"
    "d9CSSj7Sc%wkp5Rgo2yHIZyW8Rksfufmq<KZ)$0T@5ae+NRZZ`^S>t=6tq(#zUM8S+)^GF`H}9@yPW<5)Bhfr;WKH<)E0mAtph{6@(`qp)MJD0cO"
    "w;O%uM(v#Fh@l1Z4J&zSBdu9v}8b8z(xuBmEjwk@mcbh@f9c}@#>b~GMY-w}>(<Hr^njH7$Z(8%+Xm=h-XIt6?+jZfAdn#rr{Q7_QLP&*yBrs2{^"
    "aVf7pua487SJ(JT;V+(hzwzIIa{im9v%8m>zlf)y@yPmw1`%N)5+4`G$#)%=zAxVQ6)5AoW!t8+Z)fH&`tG+i9$9lt{ji0u3H3e1<uzZArT>ffzY"
    "1mi7hyTJnVJ8mJR2f0<%CZT(CbUS4u9c$-v2L8e*@<AZ$cXHhicRN@Au#Xl{RFZ"
)


def test_what_scipy_writes_is_read() -> None:
    read = read_structs(SCIPY, "synsets")
    assert [(each["ILSVRC2012_ID"], each["WNID"], each["words"], each["num_children"]) for each in read] == [
        (1, "n02119789", "kit fox, Vulpes macrotis", 0),
        (2, "n02100735", "English setter", 0),
        (3, "n01440764", "tench, Tinca tinca", 0),
        (4, "n00001740", "entity: ö", 2),
    ]
    assert read[0]["gloss"] == "a gloss"
    assert read[0]["children"] is None


@pytest.mark.parametrize("data", [b"", b"no MATLAB" * 30, SCIPY[:HEADER], SCIPY[:-40]])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"MATLAB|no array synsets|longer than the file|damaged"):
        read_structs(data, "synsets")


def test_damage_raises_nothing_else_than_value_errors() -> None:
    whole = matlab([(1, "n01440764", "tench", 0), (2, "n02119789", "kit fox", 0)])
    inner = zlib.decompress(whole[HEADER + 8 :])
    rng = random.Random(0)
    for _ in range(300):
        damaged = bytearray(inner)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        packed = zlib.compress(bytes(damaged))
        with contextlib.suppress(ValueError):
            read_structs(whole[:HEADER] + struct.pack("<II", 15, len(packed)) + packed, "synsets")
