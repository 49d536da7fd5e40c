"""One host after another, as dnf is one: repomd.xml, its signature, primary, then some packages, all checked; until told to end."""
import gzip
import hashlib
import librepo
import os
import random
import sys
import tempfile
import time
import urllib.request
import xml.etree.ElementTree as ElementTree

url, end, number, parallel = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
COMMON = "{http://linux.duke.edu/metadata/common}"
KINDS = {"sha": librepo.SHA1, "sha256": librepo.SHA256, "sha512": librepo.SHA512}
random.seed(number)


def opened(path):
    if path.endswith(".bz2"):
        import bz2

        return bz2.open(path)
    if path.endswith(".xz"):
        import lzma

        return lzma.open(path)
    return gzip.open(path)


def packages(path):
    """What primary.xml lists: location, size, checksum and its kind."""
    with opened(path) as document:
        for package in ElementTree.parse(document).getroot().iter(COMMON + "package"):
            find = lambda name: package.find(COMMON + name)
            checksum = find("checksum")
            yield find("location").get("href"), int(find("size").get("package")), checksum.text, KINDS[checksum.get("type")]


def check_signature(repomd, headers):
    """The signature is of the repomd.xml that this host got, or there is none."""
    request = urllib.request.Request(url + "repodata/repomd.xml.asc", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            signature = answer.read().decode()
    except urllib.error.HTTPError as error:
        assert error.code == 404, f"the signature: {error}"
        return
    assert hashlib.sha256(repomd).hexdigest() in signature, "the signature of another repomd.xml"


def transaction(agent):
    address = f"10.7.{number}.1"
    with tempfile.TemporaryDirectory() as folder:
        handle, result = librepo.Handle(), librepo.Result()
        handle.repotype, handle.urls, handle.destdir = librepo.LR_YUMREPO, [url], folder
        handle.yumdlist, handle.checksum, handle.useragent = ["primary"], True, agent
        handle.maxparalleldownloads, handle.maxdownloadspermirror = 20, parallel
        # Each in a network of its own, which is steered as one: the node trusts what comes over loopback.
        handle.httpheader = [f"X-Forwarded-For: {address}"]
        handle.perform(result)
        files = result.getinfo(librepo.LRR_YUM_REPO)
        with open(files["repomd"], "rb") as repomd:
            check_signature(repomd.read(), {"User-Agent": agent, "X-Forwarded-For": address})
        listed = list(packages(files["primary"]))
        targets = [
            librepo.PackageTarget(
                href, handle=handle, dest=folder + "/", checksum_type=kind, checksum=checksum, expectedsize=size
            )
            for href, size, checksum, kind in random.sample(listed, 8)
        ]
        librepo.download_packages(targets)
        failed = [target.err for target in targets if target.err]
        assert not failed, failed
        return len(targets)


hosts = fetched = 0
while not os.path.exists(end):
    hosts += 1
    fetched += transaction(f"libdnf (host {number}.{hosts})")
    time.sleep(random.uniform(0.5, 2))
print(hosts, fetched)
