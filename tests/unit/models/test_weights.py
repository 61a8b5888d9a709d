# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import hashlib

import pytest
import torch

from anomalib_logic.models.components import weights
from anomalib_logic.models.components.weights import PublishedFile, published_weights, read_state_dict


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A published file on this disk, and an empty cache."""
    source = tmp_path / "server" / "small.pth"
    source.parent.mkdir()
    torch.save({"weight": torch.arange(3.0)}, source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    monkeypatch.setattr(weights, "get_pretrained_weights_dir", lambda: tmp_path / "cache")
    file = PublishedFile(source.as_uri(), digest)
    monkeypatch.setitem(weights.PUBLISHED, "small", file)
    return source


def test_file_is_downloaded_once_and_then_found(published):
    path = published_weights("small")
    assert read_state_dict(path, "argument")["weight"].tolist() == [0, 1, 2]
    published.unlink()
    assert published_weights("small") == path


def test_failed_download_says_where_to_put_the_file_and_leaves_nothing(published, tmp_path):
    published.unlink()
    with pytest.raises(RuntimeError, match=r"could not download the weights 'small'.*put it at .*small\.pth"):
        published_weights("small")
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def cached_files(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_download_cut_short_is_refused_and_leaves_nothing(published, tmp_path):
    published.write_bytes(published.read_bytes()[:-10])
    with pytest.raises(RuntimeError, match=r"invalid hash value.*put it at .*small\.pth"):
        published_weights("small")
    assert not cached_files(tmp_path)


def test_download_cut_short_without_a_published_digest_is_refused_when_it_is_read(published, monkeypatch):
    monkeypatch.setitem(weights.PUBLISHED, "small", PublishedFile(published.as_uri()))
    published.write_bytes(published.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"argument file .*small\.pth cannot be read as a PyTorch state dict"):
        read_state_dict(published_weights("small"), "argument")


def test_file_is_hashed_once_as_long_as_it_stays_the_same(published, monkeypatch):
    path, hashed = published_weights("small"), []
    sha256 = hashlib.sha256
    monkeypatch.setattr(weights.hashlib, "sha256", lambda *args: hashed.append(1) or sha256(*args))
    assert [published_weights("small") for _ in range(3)] == [path] * 3
    assert len(hashed) == 1
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(RuntimeError, match="is not the published file 'small'"):
        published_weights("small")


def test_download_of_another_file_is_refused_and_leaves_nothing(published, tmp_path):
    published.write_bytes(b"another file")
    with pytest.raises(RuntimeError, match=r"invalid hash value.*put it at .*small\.pth"):
        published_weights("small")
    assert not cached_files(tmp_path)


def test_file_that_is_not_the_published_one_is_refused(published):
    path = published_weights("small")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(RuntimeError, match="is not the published file 'small'"):
        published_weights("small")


def test_file_without_a_published_digest_has_its_own_printed(published, monkeypatch, caplog):
    monkeypatch.setitem(weights.PUBLISHED, "small", PublishedFile(published.as_uri()))
    published_weights("small")
    assert hashlib.sha256(published.read_bytes()).hexdigest() in caplog.text


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"weight": torch.zeros(1), "code": pytest.raises}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="cannot be read as a PyTorch state dict"):
        read_state_dict(tmp_path / "code.pth", "argument")


@pytest.mark.parametrize("name", list(weights.PUBLISHED))
def test_published_digests_are_digests(name):
    digest = weights.PUBLISHED[name].sha256
    assert digest is None or (len(digest) == 64 and int(digest, 16) > 0)
