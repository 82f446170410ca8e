"""EXR files: pixels, header, time code, and what an interruption leaves behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import FrozenInstanceError
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vszhdrv
from vszhdrv import exr, files
from vszhdrv.exr import Header, Sequence, parse_filename, read, timecode, write


def frame(height=19, width=33, seed=0, scale=8.0):
    return np.random.default_rng(seed).random((3, height, width), dtype=np.float32) * np.float32(scale)


def interleaved(planes):
    return planes.transpose(1, 2, 0)


def attributes(path):
    import OpenEXR

    return OpenEXR.File(str(path), header_only=True).header()


def program(name):
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


# --- pixels


@pytest.mark.parametrize("compression", ["zip", "zips", "piz", "none", "htj2k32"])
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (19, 33), (70, 17)])
def test_float_comes_back_bit_for_bit(tmp_path, compression, size):
    if compression not in exr.available_compressions():
        pytest.skip(f"this OpenEXR has no {compression}")
    rgb = frame(*size)
    write(tmp_path / "a.exr", rgb, Header(compression=compression, half=False))
    np.testing.assert_array_equal(read(tmp_path / "a.exr"), interleaved(rgb))


def test_half_comes_back_rounded_to_half(tmp_path):
    rgb = frame()
    write(tmp_path / "a.exr", rgb, Header())
    back = read(tmp_path / "a.exr")
    np.testing.assert_array_equal(back, interleaved(rgb).astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(back, interleaved(rgb), rtol=2**-11, atol=2**-25)


@pytest.mark.parametrize("compression", ["dwaa", "dwab"])
def test_lossy_compressions_come_close(tmp_path, compression):
    y, x = np.mgrid[:64, :96].astype(np.float32)
    rgb = np.stack([x / 96, y / 64, (x + y) / 160])
    write(tmp_path / "a.exr", rgb, Header(compression=compression))
    assert np.abs(read(tmp_path / "a.exr") - interleaved(rgb)).max() < 0.02


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    half=st.booleans(),
    layout=st.sampled_from(["planar", "interleaved", "padded", "flipped", "float64"]),
)
def test_any_strides_store_the_same_picture(tmp_path, height, width, half, layout):
    rgb = frame(height, width)
    padded = np.zeros((3, height, width + 7), np.float32)  # VapourSynth's rows are longer than the picture
    padded[:, :, :width] = rgb
    given_as = {
        "planar": rgb,
        "interleaved": interleaved(rgb),
        "padded": padded[:, :, :width],
        "flipped": np.ascontiguousarray(rgb[:, ::-1, ::-1])[:, ::-1, ::-1],
        "float64": rgb.astype(np.float64),
    }[layout]
    write(tmp_path / "a.exr", given_as, Header(half=half), overwrite=True)
    expected = rgb.astype(np.float16) if half else rgb
    if 3 not in (height, width):  # then (3, H, W) and (H, W, 3) can't be told apart
        np.testing.assert_array_equal(read(tmp_path / "a.exr"), interleaved(expected))


def test_half_clamps_and_counts(tmp_path):
    rgb = frame()
    rgb[0, 0, :6] = [65504, 65505, 1e9, np.inf, -np.inf, np.nan]
    rgb[2, 3, 4] = -7e4
    before = rgb.copy()
    outcome = write(tmp_path / "a.exr", rgb, Header())
    assert (outcome.written, outcome.clamped, outcome.invalid) == (True, 5, 1)
    back = read(tmp_path / "a.exr")
    np.testing.assert_array_equal(back[0, :6, 0], [65504, 65504, 65504, 65504, -65504, 0])
    assert back[3, 4, 2] == -65504
    assert np.isfinite(back).all()
    np.testing.assert_array_equal(rgb, before)  # the caller's array is not touched


def test_float_keeps_large_values_and_holds_no_infinity(tmp_path):
    rgb = frame()
    rgb[1, 0, :3] = [1e9, np.inf, np.nan]
    outcome = write(tmp_path / "a.exr", rgb, Header(half=False))
    assert (outcome.clamped, outcome.invalid) == (1, 1)
    np.testing.assert_array_equal(read(tmp_path / "a.exr")[0, :3, 1], np.float32([1e9, np.finfo(np.float32).max, 0]))


# --- header


FULL = Header(
    compression="piz", white=100.0, primaries=9, fps=Fraction(50), sar=Fraction(64, 45), first=1001, half=True
)


def test_whole_header(tmp_path):
    import OpenEXR

    write(tmp_path / "a.exr", frame(), FULL, 50 * 3661 + 49)
    header = attributes(tmp_path / "a.exr")
    assert header["compression"] == OpenEXR.PIZ_COMPRESSION
    assert header["chromaticities"] == pytest.approx((0.708, 0.292, 0.17, 0.797, 0.131, 0.046, 0.3127, 0.329))
    assert header["whiteLuminance"] == 100.0
    assert header["framesPerSecond"] == Fraction(50)
    code = header["timeCode"]
    assert (code.hours, code.minutes, code.seconds, code.frame) == (1, 1, 1, 24)
    assert code.fieldPhase  # the second of its pair
    assert not code.dropFrame
    assert header["imageCounter"] == 1001 + 50 * 3661 + 49
    assert header["colorInteropID"] == "lin_rec2020_scene"
    assert header["pixelAspectRatio"] == pytest.approx(64 / 45)
    assert header["software"] == f"vszhdrv {vszhdrv.__version__}"
    assert "owner" not in header
    assert {channel.name for channel in header["channels"]} == {"R", "G", "B"}


@pytest.mark.parametrize("primaries", sorted(exr.CHROMATICITIES))
def test_names_and_chromaticities_agree_with_openexr(tmp_path, primaries):
    import OpenEXR

    write(tmp_path / "a.exr", frame(), Header(primaries=primaries))
    header = attributes(tmp_path / "a.exr")
    assert header["chromaticities"] == pytest.approx(exr.CHROMATICITIES[primaries])
    if hasattr(OpenEXR, "chromaticitiesToColorInteropID"):
        assert header.get("colorInteropID") == OpenEXR.chromaticitiesToColorInteropID(header["chromaticities"])
        assert OpenEXR.checkColorMetadata(header) == OpenEXR.ColorMetadataWarning.OK.value


def test_unknown_primaries_are_709(tmp_path):
    write(tmp_path / "a.exr", frame(), Header(primaries=2))
    header = attributes(tmp_path / "a.exr")
    assert header["chromaticities"] == pytest.approx(exr.CHROMATICITIES[1])
    assert header["colorInteropID"] == "lin_rec709_scene"


def test_without_a_rate_there_is_no_time_code(tmp_path):
    write(tmp_path / "a.exr", frame(), Header(fps=None), 12)
    header = attributes(tmp_path / "a.exr")
    assert "framesPerSecond" not in header
    assert "timeCode" not in header
    assert header["imageCounter"] == 12


@pytest.mark.parametrize(
    ("fps", "stored"),
    [
        (Fraction(24000, 1001), Fraction(24000, 1001)),
        (Fraction(23_976_023, 1_000_000), Fraction(23_976_023, 1_000_000)),
        (Fraction(10**12, 10**10 + 1), Fraction(100)),
        (Fraction(2**31), None),
        (Fraction(1, 2**31), None),
    ],
)
def test_rates_of_more_bits_than_the_header_has(tmp_path, fps, stored):
    write(tmp_path / "a.exr", frame(), Header(fps=fps))
    header = attributes(tmp_path / "a.exr")
    assert header.get("framesPerSecond") == stored
    assert ("timeCode" in header) == (stored is not None)


def test_the_last_number_that_any_frame_can_have(tmp_path):
    write(tmp_path / "a.exr", frame(), Header(first=exr.FIRST_MAX), 2**31 - 1 - exr.FIRST_MAX)
    assert attributes(tmp_path / "a.exr")["imageCounter"] == 2**31 - 1


@pytest.mark.parametrize(
    ("fps", "position", "expected"),
    [
        (Fraction(24), 0, (0, 0, 0, 0, False)),
        (Fraction(24), 23, (0, 0, 0, 23, False)),
        (Fraction(24), 24, (0, 0, 1, 0, False)),
        (Fraction(25), 25 * 60 + 24, (0, 1, 0, 24, False)),
        (Fraction(30), 29, (0, 0, 0, 29, False)),
        (Fraction(24000, 1001), 24 * 3600, (1, 0, 0, 0, False)),
        (Fraction(30000, 1001), 1800, (0, 1, 0, 0, False)),  # drop frame would say 00:01:00;02
        (Fraction(50), 1, (0, 0, 0, 0, True)),
        (Fraction(50), 48, (0, 0, 0, 24, False)),
        (Fraction(50), 49, (0, 0, 0, 24, True)),
        (Fraction(50), 50, (0, 0, 1, 0, False)),
        (Fraction(60), 58, (0, 0, 0, 29, False)),
        (Fraction(60), 59, (0, 0, 0, 29, True)),
        (Fraction(60000, 1001), 60, (0, 0, 1, 0, False)),
        (Fraction(48), 47, (0, 0, 0, 23, True)),
        (Fraction(120), 119, (0, 0, 0, 29, True)),
        (Fraction(1, 5), 3, (0, 0, 3, 0, False)),
        (Fraction(24), 24 * 86400 - 1, (23, 59, 59, 23, False)),
        (Fraction(24), 24 * 86400, (0, 0, 0, 0, False)),  # around the clock
    ],
)
def test_timecodes_by_hand(fps, position, expected):
    assert timecode(position, fps) == expected


@given(st.fractions(min_value=Fraction(1, 10), max_value=1000), st.integers(0, 10**9))
def test_openexr_takes_every_timecode(fps, position):
    import OpenEXR

    hours, minutes, seconds, frames, field = timecode(position, fps)
    code = OpenEXR.TimeCode(hours, minutes, seconds, frames, 0, 0, field, 0, 0, 0, *[0] * 8)
    kept = code.hours, code.minutes, code.seconds, code.frame, bool(code.fieldPhase)
    assert kept == (hours, minutes, seconds, frames, field)


def test_exrheader_reads_it(tmp_path):
    write(tmp_path / "a.exr", frame(), FULL, 49)
    words = subprocess.run(
        [program("exrheader"), tmp_path / "a.exr"], capture_output=True, text=True, check=True
    ).stdout
    for expected in (
        "R, 16-bit floating-point",
        "piz",
        "red   (0.708 0.292)",
        "white (0.3127 0.329)",
        'colorInteropID (type string): "lin_rec2020_scene"',
        "(0 0) - (32 18)",
        "framesPerSecond (type rational): 50/1",
        "imageCounter (type int): 1050",
        "pixelAspectRatio (type float): 1.42222",
        "time 00:00:00:24",
        "drop frame 0, color frame 0, field/phase 1",
        "whiteLuminance (type float): 100",
        'software (type string): "vszhdrv',
    ):
        assert expected in words


def test_exrinfo_finds_nothing_wrong(tmp_path):
    """By its words: exrinfo 3.1.5 leaves its exit code to chance, for anybody's files."""
    write(tmp_path / "a.exr", frame(), FULL)
    (tmp_path / "cut.exr").write_bytes((tmp_path / "a.exr").read_bytes()[:200])
    whole, cut = (
        subprocess.run([program("exrinfo"), "-s", "-a", tmp_path / name], capture_output=True, text=True)
        for name in ("a.exr", "cut.exr")
    )
    assert "33 x 19" in whole.stdout and "whiteLuminance" in whole.stdout and not whole.stderr
    assert not cut.stdout


@pytest.mark.parametrize("half", [False, True])
def test_ffmpeg_reads_the_same_picture(tmp_path, half):
    rgb = frame()
    write(tmp_path / "a.exr", rgb, Header(half=half, sar=Fraction(4, 3), compression="zip"))
    raw = subprocess.run(
        [program("ffmpeg"), "-v", "error", "-i", tmp_path / "a.exr", "-f", "rawvideo", "-pix_fmt", "gbrpf32le", "-"],
        capture_output=True,
        check=True,
    ).stdout
    green, blue, red = np.frombuffer(raw, "<f4").reshape(3, 19, 33)
    np.testing.assert_array_equal(np.stack([red, green, blue]), rgb.astype(np.float16) if half else rgb)
    probe = subprocess.run(
        [program("ffprobe"), "-v", "error", "-show_streams", "-show_frames", "-of", "json", tmp_path / "a.exr"],
        capture_output=True,
        check=True,
    ).stdout
    described = json.loads(probe)
    assert (described["streams"][0]["width"], described["streams"][0]["height"]) == (33, 19)
    assert described["frames"][0]["sample_aspect_ratio"] == "4:3"


# --- names


@pytest.mark.parametrize(
    ("pattern", "number", "expected"),
    [
        ("a.%06d.exr", 12, "a.000012.exr"),
        ("a.####.exr", 12, "a.0012.exr"),
        ("a.%d.exr", 12, "a.12.exr"),
        ("%04d.EXR", 123456, "123456.EXR"),
        ("c#/100%/a_#_b.exr", 7, "c#/100%/a_7_b.exr"),
    ],
)
def test_filenames(pattern, number, expected):
    assert parse_filename(pattern)(number) == Path(expected)


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        ("a.exr", "no number field;"),
        ("a.%06d.####.exr", "2 number fields;"),
        ("a.##.##.exr", "2 number fields;"),
        ("a.%06d.png", "must end in .exr"),
        ("a.%06d", "must end in .exr"),
        ("a.%6d.exr", "no number field;"),
        ("%06d/a.exr", "no number field;"),
        ("", "no number field;"),
    ],
)
def test_bad_filenames(pattern, word):
    with pytest.raises(ValueError, match=r"^filename is ") as caught:
        parse_filename(pattern)
    assert word in str(caught.value)
    assert pattern in str(caught.value)


def test_filenames_that_are_not_text():
    with pytest.raises(ValueError, match=r"^filename must be a path in UTF-8, .*, not b'a\\xff\.%d\.exr'$"):
        parse_filename("a\udcff.%d.exr")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"compression": "lzw"}, "compression is 'lzw'; use one of zip, zips, piz"),
        ({"white": 0.0}, "white is 0.0 nits"),
        ({"white": float("nan")}, "white is nan nits"),
        ({"fps": Fraction(0)}, "fps is 0"),
        ({"sar": Fraction(0)}, "sar is 0"),
        ({"first": -1}, "first is -1"),
        ({"first": 3_000_000_000}, "first is 3000000000; use 0 to 1000000000"),
    ],
)
def test_bad_headers(arguments, words):
    with pytest.raises(ValueError) as caught:
        Header(**arguments)
    assert words in str(caught.value)


def test_htj2k_is_offered_where_openexr_has_it(monkeypatch):
    import OpenEXR

    monkeypatch.delattr(OpenEXR, "HTJ2K32_COMPRESSION", raising=False)
    with pytest.raises(ValueError, match=r"compression is 'htj2k32'; use one of zip, zips, piz, dwaa, dwab, none$"):
        Header(compression="htj2k32")


def test_bad_shapes(tmp_path):
    for shape in [(4, 20, 20), (20, 20), (1, 3, 20, 20)]:
        with pytest.raises(ValueError, match="rgb has the shape"):
            write(tmp_path / "a.exr", np.zeros(shape, np.float32), Header())
    assert list(tmp_path.iterdir()) == []


def test_header_is_frozen():
    with pytest.raises(FrozenInstanceError):
        Header().half = False  # type: ignore[misc]


# --- files


def test_sequence_counts_and_skips(tmp_path):
    pattern = tmp_path / "new" / "s.####.exr"
    first = Sequence(pattern, Header(first=1001))
    for n in range(3):
        first.write(n, frame(seed=n))
    assert (first.written, first.skipped) == (3, 0)
    assert [p.name for p in sorted(pattern.parent.iterdir())] == ["s.1001.exr", "s.1002.exr", "s.1003.exr"]

    first.path(1).write_bytes(first.path(1).read_bytes()[:-1])  # cut off
    again = Sequence(pattern, Header(first=1001))
    for n in range(3):
        again.write(n, frame(seed=10 + n) * 1e6)
    assert (again.written, again.skipped) == (1, 2)
    assert again.clamped > 0
    assert [read(again.path(n)).max() for n in range(3)] == pytest.approx([8, 65504, 8], rel=0.01)

    over = Sequence(pattern, Header(first=1001), overwrite=True)
    for n in range(3):
        over.write(n, frame(seed=20 + n))
    assert (over.written, over.skipped, over.clamped) == (3, 0, 0)
    np.testing.assert_array_equal(read(over.path(2)), interleaved(frame(seed=22).astype(np.float16)))


def test_a_file_of_another_size_is_replaced(tmp_path):
    write(tmp_path / "a.exr", frame(20, 20), Header())
    assert write(tmp_path / "a.exr", frame(20, 21), Header()).written
    assert read(tmp_path / "a.exr").shape == (20, 21, 3)


@pytest.mark.parametrize("compression", exr.COMPRESSIONS)
@pytest.mark.parametrize("half", [True, False])
def test_whole_files_are_valid_and_cut_ones_are_not(tmp_path, capfd, compression, half):
    if compression not in exr.available_compressions():
        pytest.skip(f"this OpenEXR has no {compression}")
    path = tmp_path / "a.exr"
    write(path, frame(300, 17), Header(compression=compression, half=half, fps=Fraction(24)))
    assert exr.is_valid(path, 17, 300)
    assert not exr.is_valid(path, 300, 17)
    whole = path.read_bytes()
    for length in [0, 3, 8, 50, 300, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert not exr.is_valid(path, 17, 300), length
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    assert not exr.is_valid(path, 17, 300)
    assert capfd.readouterr() == ("", "")  # standard output may be a pipe full of video


def test_files_of_other_programs_are_judged_alike(tmp_path):
    path = tmp_path / "a.exr"
    source = ["-f", "lavfi", "-i", "testsrc=size=34x20:duration=1:rate=1", "-pix_fmt", "gbrpf32le"]
    subprocess.run([program("ffmpeg"), "-v", "error", *source, "-frames:v", "1", path], check=True)
    assert exr.is_valid(path, 34, 20)
    path.write_bytes(b"not an EXR file at all" * 100)
    assert not exr.is_valid(path, 34, 20)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(path, channels, attributes):
        path.write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(exr, "_write_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.exr", frame(), Header())
    assert list(tmp_path.iterdir()) == []


def test_an_impossible_path_is_an_oserror(tmp_path):
    (tmp_path / "a.exr").mkdir()
    with pytest.raises(OSError):
        write(tmp_path / "a.exr", frame(), Header(), overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.exr"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_an_oserror_that_names_the_file(tmp_path, monkeypatch):
    write_file = exr._write_file
    monkeypatch.setattr(exr, "_write_file", lambda path, *rest: write_file(Path("/dev/full"), *rest))
    with pytest.raises(OSError, match=r"a\.exr can't be written into the folder .*No space left"):
        write(tmp_path / "a.exr", frame(), Header())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_that_openexr_does_not_tell_of_is_an_oserror(tmp_path, monkeypatch):
    """Files of less than its stream's buffer are written while they are closed, and what fails then is not told."""
    write(tmp_path / "a.exr", frame(seed=1), Header())
    monkeypatch.setattr(exr, "_write_file", lambda path, *rest: path.touch())
    with pytest.raises(OSError, match=r"a\.exr can't be written .*No space left"):
        write(tmp_path / "a.exr", frame(seed=2), Header(), overwrite=True)
    np.testing.assert_array_equal(read(tmp_path / "a.exr"), interleaved(frame(seed=1).astype(np.float16)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.exr"]


def test_stale_temporaries_are_swept_and_young_ones_stay(tmp_path):
    old, young = (tmp_path / f".s.0001.exr.{token}.vszhdrv-part" for token in ("00000000", "11111111"))
    bystander = tmp_path / "notes.part"
    for path in (old, young, bystander):
        path.write_bytes(b"?")
        os.utime(path, (time.time() - (60 if path == young else 3600),) * 2)
    Sequence(tmp_path / "s.####.exr", Header())
    assert not old.exists()
    assert young.exists()
    assert bystander.exists()
    assert files.sweep(tmp_path, older_than=0) == 1


def test_stale_temporaries_of_others_stay(tmp_path, monkeypatch):
    def refused(self):
        raise PermissionError(1, "Operation not permitted", str(self))

    (tmp_path / ".s.0001.exr.00000000.vszhdrv-part").write_bytes(b"?")
    monkeypatch.setattr(Path, "unlink", refused)  # as in a folder like /tmp
    assert files.sweep(tmp_path, older_than=-1) == 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_writer_leaves_no_broken_file_under_a_final_name(tmp_path):
    script = (
        "import numpy as np, sys; from vszhdrv.exr import *\n"
        "s = Sequence(sys.argv[1], Header(half=False, compression='none'), overwrite=True)\n"
        "rgb = np.random.default_rng(0).random((3, 1500, 2000), dtype=np.float32)\n"
        "[s.write(n % 3, rgb) for n in range(10000)]\n"
    )
    for attempt in range(3):
        writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "s.%04d.exr")])
        deadline = time.monotonic() + 30
        while not (tmp_path / "s.0002.exr").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        while not list(tmp_path.glob(".*.vszhdrv-part")) and time.monotonic() < deadline:
            pass  # in the middle of a file
        time.sleep(0.003 * attempt)
        writer.kill()
        writer.wait()
        for path in tmp_path.glob("s.*.exr"):
            assert exr.is_valid(path, 2000, 1500)
    files.sweep(tmp_path, older_than=-1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.0000.exr", "s.0001.exr", "s.0002.exr"]


def test_reading_a_broken_file_is_an_oserror(tmp_path):
    write(tmp_path / "a.exr", frame(200, 30), Header())
    (tmp_path / "a.exr").write_bytes((tmp_path / "a.exr").read_bytes()[:-10])
    for name in ("a.exr", "missing.exr"):
        with pytest.raises(OSError, match="could not be read"):
            read(tmp_path / name)


def test_import_is_light():
    check = "import sys, vszhdrv.exr; print({'torch', 'vapoursynth', 'OpenEXR'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_header_from_the_source() -> None:
    chosen = Header("piz", half=False, white=100, first=7)
    header = exr.described(chosen, 9, Fraction(30000, 1001), {"_SARNum": 16, "_SARDen": 11})
    assert header == Header("piz", False, 100, 9, Fraction(30000, 1001), Fraction(16, 11), 7)
    header = exr.described(Header(), 1, Fraction(0), {})
    assert (header.fps, header.sar) == (None, 1)


@pytest.mark.parametrize(("milliseconds", "constant"), [(42, True), (41, True), (100, False), (33, False)])
def test_an_average_rate_is_not_written(milliseconds: int, constant: bool) -> None:
    rate = Fraction(24000, 1001)
    header = exr.described(Header(), 1, rate, {"_DurationNum": milliseconds, "_DurationDen": 1000})
    assert header.fps == (rate if constant else None)
