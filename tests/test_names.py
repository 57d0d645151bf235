"""Names: flattening, result names, file ids, and what is refused."""

import pytest

from util.errors import UserError
from util.names import (
    check_relative_name,
    file_id,
    flatten_deepfashion_path,
    is_flat_deepfashion_name,
    parse_result_name,
    result_name,
    stem,
    unflatten_deepfashion_name,
)

# The 23 gender / category combinations of DeepFashion In-shop.
CATEGORIES = {
    "WOMEN": (
        "Blouses_Shirts", "Cardigans", "Denim", "Dresses", "Graphic_Tees", "Jackets_Coats",
        "Leggings", "Pants", "Rompers_Jumpsuits", "Shorts", "Skirts", "Sweaters",
        "Sweatshirts_Hoodies", "Tees_Tanks",
    ),
    "MEN": (
        "Denim", "Jackets_Vests", "Pants", "Shirts_Polos", "Shorts", "Suiting", "Sweaters",
        "Sweatshirts_Hoodies", "Tees_Tanks",
    ),
}  # fmt: skip
VIEWS = ("1_front", "2_side", "3_back", "4_full", "6_flat", "7_additional")
PATHS = [
    f"{gender}/{category}/id_{identity:08d}/{number:02d}_{view}.jpg"
    for gender, categories in CATEGORIES.items()
    for category in categories
    for identity in (0, 693, 7838, 99_999_999)
    for number in (1, 2, 10)
    for view in VIEWS
]


def test_there_are_23_categories():
    assert sum(map(len, CATEGORIES.values())) == 23


def test_flattening_maps_every_path_forth_and_back_and_no_two_to_one_name():
    flat = [flatten_deepfashion_path(path) for path in PATHS]
    assert [unflatten_deepfashion_name(name) for name in flat] == PATHS
    assert len(set(flat)) == len(PATHS)
    assert all(map(is_flat_deepfashion_name, flat))
    assert not any("_2_" in name for name in flat)


@pytest.mark.parametrize(
    ("path", "flat"),
    [
        (
            "WOMEN/Blouses_Shirts/id_00000693/02_3_back.jpg",
            "fashionWOMENBlouses_Shirtsid0000069302_3back.jpg",
        ),
        (
            "MEN/Shirts_Polos/id_00001802/02_4_full.jpg",
            "fashionMENShirts_Polosid0000180202_4full.jpg",
        ),
        (
            "WOMEN/Tees_Tanks/id_00007838/05_7_additional.jpg",
            "fashionWOMENTees_Tanksid0000783805_7additional.jpg",
        ),
        (
            "WOMEN/Pants/id_00000001/01_6_flat.jpg",
            "fashionWOMENPantsid0000000101_6flat.jpg",
        ),
    ],
)
def test_flat_names_are_the_published_ones(path, flat):
    assert flatten_deepfashion_path(path) == flat
    assert flatten_deepfashion_path(f"some/where/img_highres/{path}") == flat
    assert unflatten_deepfashion_name(flat) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "02_3_back.jpg",
        "KIDS/Denim/id_00000001/01_1_front.jpg",
        "MEN/Denim/id_1/01_1_front.jpg",
        "MEN/Denim/id_00000001/front.jpg",
        "MEN/Denim/id_00000001/01_1_front_x.jpg",
        "MEN/Den1m/id_00000001/01_1_front.jpg",
    ],
)
def test_a_path_that_could_not_be_mapped_back_is_refused(path):
    with pytest.raises(UserError, match="is not the path of a DeepFashion image"):
        flatten_deepfashion_path(path)


def test_a_name_that_is_not_flat_is_refused():
    with pytest.raises(UserError, match="is not a flattened DeepFashion name"):
        unflatten_deepfashion_name("me.jpg")


def test_result_names_of_published_images_are_read_back():
    flat = [flatten_deepfashion_path(path) for path in PATHS[::37]]
    for source in flat:
        for target in flat:
            name = result_name(source, target, "jpg")
            assert parse_result_name(name) == (source[:-4], target[:-4])


def test_the_result_name_is_the_published_one():
    source, target = (
        "fashionMENDenimid0000523301_1front.jpg",
        "fashionMENDenimid0000523301_4full.jpg",
    )
    assert result_name(source, target, ".jpg") == f"{source[:-4]}_2_{target[:-4]}_vis.jpg"
    assert result_name("a.png", "b.png") == "a_2_b_vis.png"


def test_the_published_rule_takes_the_last_separator_and_the_first_suffix():
    assert parse_result_name("folder/a_2_b_2_c_vis_3.png") == ("a_2_b", "c")
    assert parse_result_name("a_2_2_b_vis.png") == ("a_2", "b")


@pytest.mark.parametrize("name", ["", "a.png", "a_2_b.png", "_2_b_vis.png", "a_2__vis.png"])
def test_other_files_are_not_result_names(name):
    with pytest.raises(UserError, match="is not a result name"):
        parse_result_name(name)


def test_results_of_images_in_folders_stay_in_one_folder():
    path = "img/WOMEN/Tees_Tanks/id_00007838/05_7_additional.jpg"
    assert stem(path) == file_id(path) == "imgWOMENTees_Tanksid_0000783805_7_additional"
    assert "/" not in result_name(path, path)


def test_a_result_name_too_long_for_a_file_is_refused():
    with pytest.raises(UserError, match="use shorter image names"):
        result_name("a" * 150 + ".jpg", "b" * 150 + ".jpg")


def test_file_ids_drop_slashes_and_the_extension_only():
    assert file_id("a.b/c_d.e.jpg") == "a.bc_d.e"
    assert file_id("a\\b\\c.png") == "abc"
    assert file_id("c") == "c"


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg",
        "with space.jpg",
        "Ünïcödé 人.jpg",
        "a/b/c.jpg",
        "..a.jpg",
        "a..jpg",
        "=1+1",
        "<b>.png",
    ],
)
def test_harmless_names_pass_unchanged(name):
    assert check_relative_name(name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("../x.jpg", "climbs out"),
        ("a/../../x.jpg", "climbs out"),
        ("..", "climbs out"),
        ("/etc/passwd", "absolute path"),
        ("C:/x.jpg", "absolute path"),
        ("..\\x.jpg", "backslash"),
        ("a\0.jpg", "control character"),
        ("a\nb.jpg", "control character"),
        ("a//b.jpg", "empty or '.' folder"),
        ("./a.jpg", "empty or '.' folder"),
        ("a/", "empty or '.' folder"),
        (" a.jpg", "begins or ends with a space"),
        ("x" * 300, "longer than 255 bytes"),
        ("\ud800.jpg", "not valid unicode"),
    ],
)
def test_unsafe_names_are_refused_in_one_sentence_that_names_the_row(name, problem):
    with pytest.raises(UserError, match=r"^pairs.csv, row 7: the name ") as error:
        check_relative_name(name, "pairs.csv, row 7")
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_an_image_called_person_2_is_read_back():
    assert parse_result_name(result_name("person_1.jpg", "person_2.jpg")) == (
        "person_1",
        "person_2",
    )
