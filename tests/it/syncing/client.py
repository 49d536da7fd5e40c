"""One client after another, as dnf is one: metadata, then some packages, checked; ends with the first failure or when told to."""
import gzip
import librepo
import lzma
import os
import random
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree

url, end, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
COMMON = "{http://linux.duke.edu/metadata/common}"
random.seed(number)


def packages(path):
    """What primary.xml lists: location, size, SHA-256."""
    opened = lzma.open(path) if path.endswith(".xz") else gzip.open(path)
    with opened as document:
        for package in ElementTree.parse(document).getroot().iter(COMMON + "package"):
            find = lambda name: package.find(COMMON + name)
            yield find("location").get("href"), int(find("size").get("package")), find("checksum").text


def transaction(agent):
    with tempfile.TemporaryDirectory() as folder:
        handle, result = librepo.Handle(), librepo.Result()
        handle.repotype, handle.urls, handle.destdir = librepo.LR_YUMREPO, [url], folder
        handle.yumdlist, handle.checksum, handle.useragent = ["primary"], True, agent
        # Each in a network of its own, which is steered as one: the node trusts what comes over loopback.
        handle.httpheader = [f"X-Forwarded-For: 10.7.{number}.1"]
        handle.perform(result)
        primary = result.getinfo(librepo.LRR_YUM_REPO)["primary"]
        listed = list(packages(primary))
        targets = [
            librepo.PackageTarget(
                href, handle=handle, dest=folder + "/", checksum_type=librepo.SHA256, checksum=checksum, expectedsize=size
            )
            for href, size, checksum in random.sample(listed, 8)
        ]
        librepo.download_packages(targets)
        failed = [target.err for target in targets if target.err]
        assert not failed, failed
        return len(targets)


hosts = fetched = 0
while not os.path.exists(end):
    hosts += 1
    fetched += transaction(f"libdnf (host {number}.{hosts})")
    time.sleep(random.uniform(0.1, 0.5))
print(hosts, fetched)
