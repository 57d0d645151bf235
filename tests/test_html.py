"""Building blocks of the pages: escaping, links, page skeleton."""

import os
import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from util.errors import UserError
from util.show.html import clean_text, facts, new_page, picture, relative_url

HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("images/a b.png", "images/a%20b.png"),
        ("a#1?x=2&y%.png", "a%231%3Fx%3D2%26y%25.png"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
        ("http://example.org/a.png", "http%3A/example.org/a.png"),
        ("../images/ü.png", "../images/%C3%BC.png"),
        (r"a\b.png", "a%5Cb.png"),
    ],
)
def test_a_path_becomes_a_relative_percent_encoded_url(path, url):
    assert relative_url(path) == url


@pytest.mark.parametrize("path", ["/etc/passwd", "//example.org/a.png", ""])
def test_an_absolute_or_empty_path_cannot_be_linked(path):
    with pytest.raises(UserError, match="expected a relative path"):
        relative_url(path)


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1).filter(lambda s: s != "."))
def test_every_file_name_survives_the_way_into_a_url_and_back(name):
    try:
        raw = os.fsencode(name)
    except UnicodeEncodeError:
        return  # not a possible file name
    url = relative_url(name)
    assert unquote_to_bytes(url) == raw
    assert re.fullmatch(r"[A-Za-z0-9_.~%-]+", url)


def test_control_characters_and_broken_unicode_are_replaced():
    assert clean_text("a\x00b\x1b[31m\udc80\tc") == "a\ufffdb\ufffd[31m?\tc"


def test_hostile_text_is_escaped_wherever_it_appears():
    page = new_page(HOSTILE)
    page.add(picture("a.png", HOSTILE, HOSTILE), facts({HOSTILE: HOSTILE}))
    text = page.render()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert f'alt="{HOSTILE}' not in text


def test_a_page_names_its_encoding_first_and_forbids_scripts():
    text = new_page("x" * 2000).render()
    assert text.index('charset="utf-8"') < 200
    assert "default-src 'none'" in text
    assert "<script" not in text
    assert "http://" not in text
    assert "https://" not in text


def test_floats_are_shown_with_four_digits_and_integers_in_full():
    text = facts({"PSNR": 19.14923, "pairs": 8570}).render()
    assert "<dd>19.15</dd>" in text
    assert "<dd>8570</dd>" in text
