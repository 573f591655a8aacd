"""Names that people read: labels, last parts of paths, and what tells two things apart."""

import pytest

from benchkit.reading.names import readable
from benchkit.store.places import Place

ONE, TWO, THREE = (f"fp-{c * 16}" for c in "abc")


def at(**paths: str) -> dict[str, list[Place]]:
    return {
        {"one": ONE, "two": TWO, "three": THREE}[k]: [Place({"one": ONE, "two": TWO, "three": THREE}[k], p, "h", "")]
        for k, p in paths.items()
    }


@pytest.mark.parametrize(
    ("names", "seen", "shown", "once"),
    [
        ([f"bird-mae,path={ONE}"], {"one": "/w/bird_mae_tiny"}, ["bird-mae (bird_mae_tiny)"], ""),
        ([f"bird-mae,layer=2,path={ONE}"], {"one": "/w/tiny"}, ["bird-mae,layer=2 (tiny)"], ""),
        ([f"fitted:{ONE}", "random"], {"one": "/k/a.safetensors"}, ["fitted (a.safetensors)", "random"], ""),
        ([f"calls,root={ONE}", f"calls,root={TWO}"], {"one": "/a/data", "two": "/b/data"},
         ["calls (a/data)", "calls (b/data)"], ""),
        ([f"calls,root={ONE}", f"calls,root={TWO}"], {"one": "/a", "two": "/a"},
         [f"calls (a, {ONE[:9]})", f"calls (a, {TWO[:9]})"], ""),
        ([f"calls,root={ONE}", f"calls,root={TWO}"], {"one": "/a"}, ["calls (a)", f"calls,root={TWO}"], ""),
        (["pixels,pool=cls,size=3", "pixels,pool=cls,size=5"], {}, ["pixels,size=3", "pixels,size=5"], "pool=cls"),
        ([f"m:a,path={ONE}", f"m:b,path={ONE}"], {"one": "/w/x"}, ["m:a", "m:b"], "path=x"),
        (["linear@2,lr=0.1"], {}, ["linear,lr=0.1"], ""),
        (["linear", "linear@2"], {}, ["linear", "linear@2"], ""),
        (["my-lab/hog", "baselines/hog"], {}, ["my-lab/hog", "baselines/hog"], ""),
        (["my-lab/hog", "pixels"], {}, ["hog", "pixels"], ""),
        (["=1+1", "No Spec"], {}, ["=1+1", "No Spec"], ""),
    ],
)  # fmt: skip
def test_a_name_is_short_and_no_two_look_alike(
    names: list[str], seen: dict[str, str], shown: list[str], once: str
) -> None:
    found, common = readable(names, {}, at(**seen))
    assert ([found[n] for n in names], common) == (shown, once)
    assert len(set(found.values())) == len(names)


def test_a_label_is_shown_as_it_is_and_two_that_are_equal_keep_their_names() -> None:
    labels = {"bird-mae:large": "Bird-MAE-L, ours", "pixels": "Pixels", "pixels,size=3": "Pixels"}
    found, common = readable(["bird-mae:large", "pixels", "pixels,size=3", "hog"], labels, {})
    assert (found["bird-mae:large"], found["hog"], common) == ("Bird-MAE-L, ours", "hog", "")
    assert {found["pixels"], found["pixels,size=3"]} == {"Pixels (pixels)", "Pixels (pixels,size=3)"}
