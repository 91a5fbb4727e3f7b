"""The store of environments on the share: layers by digest, versions by name, written by the Host and read by all.

    <shared>/<docker.container_dir>/
        blobs/sha256/<hex>.tar.zst     one layer, named by the digest of its uncompressed tar
        versions/<name>/<version>.json the manifest of one version: appears last, by rename
        heads/<name>.json              which version is current, and the tags
        tmp/                           what is being written
        <name>-<version>.tar           a version as one archive, as `docker save` writes it

What is under its final name is whole: everything is written under `tmp`, synced, and renamed. The Host alone writes,
so nothing on the share needs a lock. Layers are compressed by zstd. Every function here blocks on the share.
"""

from hakuriver.store.archive import docker_archive
from hakuriver.store.blobs import LayerWriter, read_layer, stored_size
from hakuriver.store.catalog import Catalog

__all__ = ["Catalog", "LayerWriter", "docker_archive", "read_layer", "stored_size"]
