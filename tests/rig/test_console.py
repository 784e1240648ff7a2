"""Reading a guest's signs of life."""

from tests.rig.console import parse_console

BOOT = "BOOT 11-aa\r\nCPU vendor_id GenuineIntel\r\nCPU model name Westmere E56xx\r\nCPU flags fpu sse2 aes\r\n"


def tick(number: int, *, boot: str = "11-aa", bad: int = 0, checked: int = 8) -> str:
    return f"TICK {number} boot={boot} up={number}.50 bad={bad} checked={checked} dirtied=4 pause=20\r\n"


def test_an_unharmed_guest_has_one_boot_and_no_hole() -> None:
    console = parse_console(f"SeaBIOS (version 1.16)\r\n{BOOT}{tick(0)}{tick(1)}[ 3.1] kernel: hello\r\n{tick(2)}")
    assert console.boot_ids == ("11-aa",)
    assert (console.vendor, console.model_name) == ("GenuineIntel", "Westmere E56xx")
    assert console.flags == {"fpu", "sse2", "aes"}
    assert [one.number for one in console.ticks] == [0, 1, 2]
    assert console.ticks[2].up == 2.5
    assert (console.holes, console.bad, console.checked) == ((), 0, 8)


def test_a_lost_tick_is_a_hole() -> None:
    assert parse_console(BOOT + tick(0) + tick(1) + tick(4)).holes == ((1, 4),)


def test_two_running_copies_are_seen_as_ticks_that_come_twice() -> None:
    assert parse_console(BOOT + tick(0) + tick(1) + tick(1) + tick(2)).holes == ((1, 1),)


def test_a_new_boot_starts_over_without_a_hole_and_with_its_own_cpu() -> None:
    second = BOOT.replace("11-aa", "22-bb").replace("aes", "avx")
    console = parse_console(BOOT + tick(0) + tick(1) + second + tick(0, boot="22-bb"))
    assert console.boot_ids == ("11-aa", "22-bb")
    assert console.holes == ()
    assert console.flags == {"fpu", "sse2", "avx"}
    assert [one.number for one in console.ticks_of("22-bb")] == [0]


def test_damage_is_counted_over_all_boots() -> None:
    second = BOOT.replace("11-aa", "22-bb")
    console = parse_console(BOOT + tick(0, bad=2) + tick(1, bad=3) + second + tick(0, boot="22-bb", bad=1))
    assert console.bad == 4


def test_a_line_that_is_still_being_written_is_left_for_later() -> None:
    whole = parse_console(BOOT + tick(0))
    assert parse_console(BOOT + tick(0) + tick(1)[:-9]) == whole
    assert parse_console("") == parse_console("BOOT 11-aa")


def test_what_stopped_the_guest_is_told() -> None:
    assert parse_console(f"{BOOT}FAILED not enough memory\r\n").failure == "not enough memory"
