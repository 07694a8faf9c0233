"""Every source gives the same images for the same pixels, with labels, splits and names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from dfkd_meta.data import Dataset, data_paths, match_classes, open_data
from dfkd_meta.data.dataset import check_labels
from dfkd_meta.data.sources import data_sources
from dfkd_meta.errors import DataError, UsageError
from dfkd_meta.sidecar import OutputSpec
from tests.data.conftest import IMAGES, LABELS, write_idx

WANTED = torch.from_numpy(IMAGES[:, None].astype(np.float32)) / 255


def check(dataset: Dataset, name: str, split: str) -> None:
    assert (dataset.name, dataset.split, len(dataset)) == (name, split, 12)
    assert torch.equal(dataset.read(slice(None)), WANTED)
    assert torch.equal(dataset.read([3, 1]), WANTED[[3, 1]])
    assert torch.equal(dataset.read(range(2)), WANTED[:2])
    assert torch.equal(dataset.read(np.array([5])), WANTED[[5]])
    assert dataset.read([0]).dtype == torch.float32
    assert dataset.labels is not None
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == LABELS.tolist()
    assert dataset.value_range == (0.0, 1.0)


@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path: Path, packed: bool) -> None:
    folder = write_idx(tmp_path / "mnist", "t10k", packed)
    check(open_data(str(folder), split="test"), "mnist", "test")
    check(open_data(f"{folder}#test"), "mnist", "test")
    with pytest.raises(DataError, match="no split 'train'") as caught:
        open_data(str(folder))
    assert caught.value.hint == "known: test"


def test_idx_without_labels(tmp_path: Path) -> None:
    assert open_data(str(write_idx(tmp_path, "train", True, labels=False))).labels is None


def test_idx_files_of_other_names_are_not_taken_for_a_split(tmp_path: Path) -> None:
    folder = write_idx(tmp_path, "emnist-letters-train", True)
    with pytest.raises(DataError, match="nothing in it can be read") as caught:
        open_data(str(folder))
    assert "train-*, t10k-*" in str(caught.value.hint)


def test_npz_and_safetensors(tmp_path: Path) -> None:
    arrays = {"images": IMAGES, "labels": LABELS}
    np.savez(tmp_path / "plain.npz", **arrays)
    np.savez_compressed(tmp_path / "packed.npz", **arrays)
    save_file(arrays, tmp_path / "tensors.safetensors")
    for name in ("plain.npz", "packed.npz", "tensors.safetensors"):
        check(open_data(str(tmp_path / name), split="train"), name.split(".")[0], "all")


def test_arrays_with_splits(tmp_path: Path) -> None:
    path = tmp_path / "both.npz"
    np.savez(path, train_images=IMAGES, test_images=IMAGES, test_labels=LABELS)
    check(open_data(str(path), split="test"), "both", "test")
    assert open_data(str(path)).labels is None
    with pytest.raises(DataError, match="no split 'val'") as caught:
        open_data(f"{path}#val")
    assert caught.value.hint == "known: train, test"


def test_a_split_that_is_named_must_be_there(tmp_path: Path) -> None:
    plain, mixed = tmp_path / "plain.npz", tmp_path / "mixed.npz"
    np.savez(plain, images=IMAGES)
    np.savez(mixed, images=IMAGES, val_images=IMAGES[:3])
    write_images(tmp_path / "flowers")
    for path in (plain, tmp_path / "flowers"):
        for spec in (str(path), f"{path}#all"):
            assert [open_data(spec, split=one).split for one in ("train", "test")] == ["all", "all"]
        for spec, split in ((f"{path}#test", "test"), (f"{path}#", "train"), (str(path), "val")):
            with pytest.raises(DataError, match="there is no split") as caught:
                open_data(spec, split=split)
            assert caught.value.hint == "known: all"
    assert [len(open_data(f"{mixed}{end}")) for end in ("", "#all", "#val")] == [12, 12, 3]


def test_float_arrays_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "features.npz"
    values = np.linspace(-5, 5, 12 * 7).reshape(12, 7)
    np.savez(path, images=values)
    dataset = open_data(str(path))
    assert dataset.value_range is None
    np.testing.assert_array_equal(dataset.read(slice(None)), values.astype(np.float32))


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ((6, 3, 8, 8), (3, 8, 8)),
        ((6, 8, 8, 3), (3, 8, 8)),
        ((6, 8, 8, 1), (1, 8, 8)),
        ((6, 1, 8, 3), (1, 8, 3)),
        ((6, 1, 4, 8, 8), (1, 4, 8, 8)),
        ((6, 8, 8), (1, 8, 8)),
        ((6, 8), (8,)),
    ],
)
def test_layouts(tmp_path: Path, stored: tuple[int, ...], read: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, stored, dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images)
    assert tuple(open_data(str(tmp_path / "x.npz")).read([0]).shape[1:]) == read


def test_digits_are_stratified_and_disjoint() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn carries the digits")
    train, test = open_data("digits"), open_data("digits#test")
    assert (len(train), len(test)) == (1442, 355)
    assert train.labels is not None
    assert test.labels is not None
    share = np.bincount(test.labels) / np.bincount(np.append(train.labels, test.labels))
    np.testing.assert_allclose(share, 0.2, atol=0.005)
    assert train.read([0]).shape == (1, 1, 8, 8)
    assert train.read(slice(None)).max() == 1.0
    with pytest.raises(DataError, match="no split 'val'"):
        open_data("digits#val")


def write_images(folder: Path, mode: str = "L") -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow reads images")
    for number, (pixels, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        place = folder / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels).convert(mode).save(place / f"{number:02}.png")


def test_image_folders(tmp_path: Path) -> None:
    write_images(tmp_path / "flowers" / "train")
    order = np.argsort(LABELS, kind="stable")  # by class, then by file name
    for spec, split in ((tmp_path / "flowers", "train"), (tmp_path / "flowers" / "train", "all")):
        dataset = open_data(str(spec))
        assert (dataset.name, dataset.split) == (spec.name, split)
        assert dataset.labels is not None
        assert dataset.labels.tolist() == LABELS[order].tolist()
        assert torch.equal(dataset.read(slice(None)), WANTED[order])
    with pytest.raises(DataError, match="no split 'test'"):
        open_data(f"{tmp_path / 'flowers'}#test")
    flat = open_data(str(tmp_path / "flowers" / "train" / "class0"))
    assert flat.labels is None
    assert len(flat) == 4


def test_a_class_keeps_its_number_where_a_split_lacks_another(tmp_path: Path) -> None:
    write_images(tmp_path / "train")
    write_images(tmp_path / "test")
    for path in (tmp_path / "test" / "class0").iterdir():
        path.unlink()
    (tmp_path / "test" / "class0").rmdir()
    (tmp_path / "test" / "class2").rename(tmp_path / "test" / "class3")
    hidden = tmp_path / "train" / ".ipynb_checkpoints"
    hidden.mkdir()
    (tmp_path / "train" / "class1" / "01.png").rename(hidden / "01-checkpoint.png")
    labels = [open_data(str(tmp_path), split=split).labels for split in ("train", "test")]
    assert [np.bincount(found).tolist() for found in labels] == [[4, 3, 4], [0, 4, 0, 4]]


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "class2").rename(tmp_path / "train")
    dataset = open_data(str(tmp_path))
    assert (dataset.split, dataset.class_names) == ("all", ["class0", "class1", "train"])
    write_images(tmp_path / "train")  # now it holds classes of its own
    for path in (tmp_path / "train").glob("*.png"):
        path.unlink()
    assert open_data(str(tmp_path)).class_names == ["class0", "class1", "class2"]


def test_color_images(tmp_path: Path) -> None:
    write_images(tmp_path, "RGB")
    assert open_data(str(tmp_path)).read([0, 1]).shape == (2, 3, 5, 4)
    write_images(tmp_path, "RGBA")
    with pytest.raises(DataError, match="neither gray nor RGB"):
        open_data(str(tmp_path)).read([0])


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_data.py").write_text(
        "import numpy as np, torch\n"
        "from dfkd_meta.data import open_data\n"
        "x = torch.arange(24).reshape(6, 4) % 7 / 7\n"
        "def pair(split):\n    return x, torch.arange(6) % 2\n"
        "def unlabeled(split):\n    return x.numpy(), None\n"
        "def dataset(split):\n    return open_data('own_data:pair', split='inner')\n"
        "def brain_floats(split):\n    return x.bfloat16().requires_grad_(), None\n"
        "def one(split):\n    return x\n"
        "def none(split):\n    return None, None\n"
        "def ragged(split):\n    return [[1], [1, 2]], None\n"
        "def objects(split):\n    return np.array([None]), None\n"
        "def crashes(split):\n    return 1 / 0\n"
        "def no_split():\n    return x, None\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_data", None)


@pytest.mark.usefixtures("own_data")
def test_own_code() -> None:
    pair = open_data("own_data:pair", split="whatever")
    assert (len(pair), pair.split) == (6, "whatever")
    assert pair.labels is not None
    assert pair.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert pair.read([0]).shape == (1, 4)
    assert open_data("own_data:unlabeled").labels is None
    rounded = (torch.arange(24).reshape(6, 4) % 7 / 7).bfloat16().float()
    assert torch.equal(open_data("own_data:brain_floats").read(slice(None)), rounded)
    assert open_data("own_data:dataset").split == "inner"


@pytest.mark.usefixtures("own_data")
@pytest.mark.parametrize("name", ["one", "none", "ragged", "objects", "crashes", "no_split", "no"])
def test_own_code_that_misbehaves(name: str) -> None:
    with pytest.raises((DataError, UsageError)):
        open_data(f"own_data:{name}")


@pytest.mark.parametrize(
    "spec", ["", "nothing", "no/such", "\x00", "x" * 5000, "#", "a#b", "a:b:c"]
)
def test_what_is_no_data(spec: str) -> None:
    with pytest.raises(DataError):
        open_data(spec)


def test_the_path_of_data_is_what_stands_before_the_split(tmp_path: Path) -> None:
    (tmp_path / "a#b").mkdir()
    own = str(tmp_path / "a#b")
    specs = [f"{tmp_path}#test", str(tmp_path), own, f"{own}#test", "digits", None, 1, ["x"]]
    assert data_paths(*specs) == [str(tmp_path), str(tmp_path), own, own, "digits"]


def test_an_empty_folder_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing in it can be read"):
        open_data(str(tmp_path))


def test_at_most_one_source_claims_a_specification(tmp_path: Path) -> None:
    write_idx(tmp_path / "idx", "train", True)
    write_images(tmp_path / "images")
    np.savez(tmp_path / "a.npz", images=IMAGES)
    specs = ["digits", "pkg.mod:function", *(str(path) for path in tmp_path.iterdir())]
    for spec in specs:
        claims = [name for name in data_sources.names() if data_sources.get(name).claims(spec)]
        assert len(claims) == 1, (spec, claims)


def test_real_mnist(real_mnist: Path) -> None:
    train, test = (open_data(str(real_mnist), split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels is not None
    assert np.bincount(train.labels).tolist()[:3] == [5923, 6742, 5958]
    assert train.read(slice(0, 100)).shape == (100, 1, 28, 28)


@pytest.mark.parametrize("label", [2**64 - 1, 10**12])
def test_a_label_that_is_no_class_number_is_refused(label: int) -> None:
    with pytest.raises(DataError, match="no class number"):
        check_labels(np.array([0, label], dtype=np.uint64), 2, where="here")


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    """A class without images shifts no other."""
    write_images(tmp_path)
    for number, name in enumerate(("cat", "dog", "eel")):
        (tmp_path / f"class{number}").rename(tmp_path / name)
    found = open_data(str(tmp_path))
    assert found.class_names == ["cat", "dog", "eel"]
    names = ["ant", "dog", "cat", "eel"]
    for _ in range(2):
        match_classes(found, OutputSpec(num_classes=4, label_names=names))
        assert found.labels is not None
        assert np.bincount(found.labels).tolist() == [0, 4, 4, 4]
        assert found.labels[0] == 2
    other = open_data(str(tmp_path))
    match_classes(other, OutputSpec(num_classes=3))
    match_classes(other, OutputSpec(num_classes=3, label_names=["Katze", "Hund", "Aal"]))
    assert other.labels is not None
    assert np.bincount(other.labels).tolist() == [4, 4, 4]
    with pytest.raises(DataError, match="3 classes, the model has 4"):
        match_classes(other, OutputSpec(num_classes=4))
    with pytest.raises(DataError, match="no class 'eel'"):
        match_classes(other, OutputSpec(num_classes=3, label_names=["cat", "dog", "fox"]))
