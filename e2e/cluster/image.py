#!/usr/bin/env python3
"""Makes a container image of files on this machine and imports it into a cluster's containerd.

usage: image.py SOCKET NAME:TAG ENTRYPOINT[,ARG...] SRC:DST [SRC:DST...]

Needs neither a registry nor an image builder. SOCKET is DIR/containerd/containerd.sock of a cluster in DIR. The shared
libraries that a program is linked with come along by themselves. A DST that ends in / is made as an empty folder.
"""
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def libraries(programs):
    """The shared libraries that the programs name, as absolute paths."""
    found = set()
    for program in programs:
        listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        found.update(re.findall(r"(/\S+) \(0x", listing))
    if found:  # glibc loads the parts of its resolver by name, so ldd does not show them
        folder = os.path.dirname(next(path for path in found if "/libc.so" in path))
        found.update(os.path.join(folder, name) for name in ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"))
    return sorted(path for path in found if os.path.exists(path))


def layer_of(pairs):
    """A tar of the files, with the folders that they are in."""
    raw, made = io.BytesIO(), set()
    with tarfile.open(fileobj=raw, mode="w") as tar:

        def add_folder(path):
            if path in ("", ".") or path in made:
                return
            add_folder(os.path.dirname(path))
            made.add(path)
            info = tarfile.TarInfo(path)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if path == "tmp" else 0o755
            tar.addfile(info)

        for source, target in pairs:
            target = target.lstrip("/")
            add_folder(target.rstrip("/") if target.endswith("/") else os.path.dirname(target))
            if not source:
                continue
            info = tar.gettarinfo(os.path.realpath(source), target)
            info.uid = info.gid = info.mtime = 0
            info.uname = info.gname = "root"
            with open(source, "rb") as content:
                tar.addfile(info, content)
    return raw.getvalue()


def write_archive(out, name, entrypoint, layer):
    """The archive format of `docker save`, which containerd imports. The user is the customary `nonroot`."""
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    members = {
        "layer.tar": layer,
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    out.flush()


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    socket, name, entrypoint, *words = sys.argv[1:]
    pairs = [word.split(":", 1) for word in words]
    pairs += [(path, path) for path in libraries(source for source, _ in pairs if source and os.access(source, os.X_OK))]
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        write_archive(archive, name, entrypoint.split(","), layer_of(pairs))
        command = ["ctr", "-a", socket, "-n", "k8s.io", "images", "import", archive.name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
