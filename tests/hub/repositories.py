"""Repositories of the local hub: what a commit holds never changes, and all hashes are real."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

LARGE = (".safetensors", ".bin", ".parquet")
"""Endings of files that are kept as Git LFS keeps them, whatever their size."""
LARGE_BYTES = 10 * 2**20
"""Every file from this size on is kept so, too."""
_DATE = "2025-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Blob:
    """A file's content.

    Attributes:
        data: Its bytes.
        oid: Git's hash: of the content, or of the pointer to a large file.
        sha256: SHA-256 of a large file, else None.
        pointer_size: Bytes of the pointer to a large file.
    """

    data: bytes
    oid: str
    sha256: str | None = None
    pointer_size: int = 0

    @property
    def etag(self) -> str:
        """What the client takes for the content's name."""
        return self.sha256 or self.oid

    @property
    def pointer(self) -> dict[str, Any]:
        """The part of a listing that tells of a large file; empty for others."""
        if self.sha256 is None:
            return {}
        size = {"size": len(self.data), "pointerSize": self.pointer_size}
        return {"lfs": {"oid": self.sha256, "sha256": self.sha256, **size}}


def make_blob(path: str, data: bytes) -> Blob:
    """Returns a file's content as the hub keeps it under a path."""
    if not path.endswith(LARGE) and len(data) < LARGE_BYTES:
        return Blob(data, _git_oid("blob", data))
    sha256 = hashlib.sha256(data).hexdigest()
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(data)}\n"
    return Blob(data, _git_oid("blob", text.encode()), sha256, len(text))


def files_in(folder: Path) -> dict[str, bytes]:
    """Returns the files of a folder, ready for a commit."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass
class Repository:
    """A model's or a dataset's repository.

    Attributes:
        name: As in `organization/name`.
        kind: `models` or `datasets`.
        branches: Commit of each branch.
        tags: Commit of each tag.
        commits: Files of each commit, by path.
        gated: Token without which no file is served, though the listing is.
        private: Token without which the repository is as if it were not there.
    """

    name: str
    kind: str
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    gated: str | None = None
    private: str | None = None

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Puts a commit that holds exactly these files on a branch, and returns its id."""
        blobs = {path: make_blob(path, data) for path, data in sorted(files.items())}
        tree = {path: blob.oid for path, blob in blobs.items()}
        about = [self.kind, self.name, branch, self.branches.get(branch), tree]
        commit = _git_oid("commit", json.dumps(about).encode())
        self.commits[commit] = blobs
        self.branches[branch] = commit
        return commit

    def tag(self, name: str, commit: str) -> None:
        """Gives a commit a tag."""
        self.tags[name] = commit

    def gate(self, token: str) -> None:
        """Serves files only to who shows the token."""
        self.gated = token

    def hide(self, token: str) -> None:
        """Shows the repository only to who shows the token."""
        self.private = token

    def resolve(self, revision: str) -> str | None:
        """Returns the commit of a branch, tag or commit id; None if there is none."""
        if revision in self.commits:
            return revision
        revision = revision.removeprefix("refs/heads/")
        return self.branches.get(revision) or self.tags.get(revision)

    def info(self, commit: str, with_sizes: bool) -> dict[str, Any]:
        """Returns what the hub tells of the repository at a commit."""
        siblings: list[dict[str, Any]] = []
        for path, blob in self.commits[commit].items():
            sizes = {"size": len(blob.data), "blobId": blob.oid, **blob.pointer}
            siblings.append({"rfilename": path, **(sizes if with_sizes else {})})
        return {
            "_id": _git_oid("repository", self.name.encode())[:24],
            "id": self.name,
            "author": self.name.split("/", maxsplit=1)[0],
            "sha": commit,
            "createdAt": _DATE,
            "lastModified": _DATE,
            "private": self.private is not None,
            "gated": "manual" if self.gated is not None else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
        }

    def refs(self) -> dict[str, list[dict[str, str]]]:
        """Returns the branches and tags, sorted as text as the hub does."""

        def listed(names: dict[str, str], prefix: str) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"refs/{prefix}/{name}", "targetCommit": names[name]}
                for name in sorted(names)
            ]

        return {
            "branches": listed(self.branches, "heads"),
            "tags": listed(self.tags, "tags"),
            "converts": [],
            "pullRequests": [],
        }

    def tree(
        self, commit: str, folder: str, recursive: bool, with_commits: bool
    ) -> list[dict[str, Any]] | None:
        """Returns the entries of a folder, sorted by path; None if there is no such folder."""
        files = self.commits[commit]
        prefix = f"{folder}/" if folder else ""
        within = [path for path in files if path.startswith(prefix)]
        if folder and not within:
            return None
        wanted: set[str] = set()
        for path in within:
            parts = path.removeprefix(prefix).split("/")
            deepest = len(parts) if recursive else 1
            wanted.update(prefix + "/".join(parts[: n + 1]) for n in range(deepest))
        return [self._entry(commit, path, with_commits) for path in sorted(wanted)]

    def entries(self, commit: str, paths: list[str], with_commits: bool) -> list[dict[str, Any]]:
        """Returns the entries of those paths that exist."""
        files = self.commits[commit]
        folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
        return [
            self._entry(commit, path, with_commits)
            for path in paths
            if path in files or path in folders
        ]

    def _entry(self, commit: str, path: str, with_commits: bool) -> dict[str, Any]:
        last = {"id": commit, "title": "commit", "date": _DATE}
        more: dict[str, Any] = {"lastCommit": last} if with_commits else {}
        blob = self.commits[commit].get(path)
        if blob is None:
            oid = _git_oid("tree", f"{commit}/{path}".encode())
            return {"type": "directory", "path": path, "oid": oid, "size": 0, **more}
        file = {"type": "file", "path": path, "oid": blob.oid, "size": len(blob.data)}
        return {**file, **blob.pointer, **more}


def _git_oid(kind: str, data: bytes) -> str:
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)) + data).hexdigest()
