"""The page's colours can be read: WCAG 2.2, contrast of text 4.5 and of marks 3, in both themes."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "dashboards"
STYLE = (FOLDER / "style.html.j2").read_text(encoding="utf-8")
SCRIPT = (FOLDER / "script.html.j2").read_text(encoding="utf-8")
TEXTS = {
    "ground": ("ink", "soft", "accent", "warn"),
    "panel": ("ink", "soft", "accent"),
    "warn-ground": ("ink", "soft", "warn"),
}


def luminance(colour: str) -> float:
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def variables(theme: str) -> dict[str, str]:
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[theme == "dark"]))


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out(theme: str) -> None:
    colours = variables(theme)
    for ground, texts in TEXTS.items():
        for text in texts:
            found = contrast(colours[text], colours[ground])
            assert found >= 4.5, f"{text} on {ground}, {theme}: {found:.2f}"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_marks_and_their_words_stand_out(theme: str) -> None:
    looks = re.findall(r'\["(#\w{6})", "(#\w{6})", "#\w{6}", \[([^\]]*)\]\]', SCRIPT)
    assert len(looks) == 2
    ink, soft, series = looks[theme == "light"]
    ground = variables(theme)["ground"]
    assert min(contrast(text, ground) for text in (ink, soft)) >= 4.5
    found = re.findall(r"#\w{6}", series)
    assert len(found) == 6
    assert min(contrast(mark, ground) for mark in found) >= 3


def test_nothing_moves_for_those_who_asked_for_that() -> None:
    assert "prefers-reduced-motion: reduce" in STYLE
