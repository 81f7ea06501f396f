"""What goes wrong with the objects of an S3 server is said, loses nothing, and is repaired by push.

DVC takes for granted that the remote has every file of a listing (`....dir`) that it has: a push
brings a lost file back as soon as the listing is deleted, too. A repository with eight files stands
for all outputs: DVC moves them alike.
"""

import json
import pathlib
import random
import re
import subprocess
import time

import boto3
import pytest

from local_s3 import ask, free_address, log_in, s3_server, start_s3
from test_smoke import commit, environment, run

pytestmark = pytest.mark.slow

BUCKET = "linocut-test"
CONFIG = """[core]
    remote = store
['remote "store"']
    url = s3://{bucket}/linocut
    endpointurl = {address}
    verify = true
"""


@pytest.fixture(scope="module", autouse=True)
def credentials():
    with pytest.MonkeyPatch.context() as patch:
        log_in(patch)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        yield patch


@pytest.fixture(scope="module")
def address():
    with s3_server(BUCKET) as found:
        yield found


def repository(folder: pathlib.Path, address: str, kilobytes: int = 30) -> pathlib.Path:
    """Eight files that DVC knows, in a commit, not pushed yet."""
    (folder / "data").mkdir(parents=True)
    for number in range(8):
        content = random.Random(number).randbytes(1000 * kilobytes)
        (folder / f"data/{number}").write_bytes(content)
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "add", "--quiet", "data")
    (folder / ".dvc/config").write_text(CONFIG.format(bucket=BUCKET, address=address))
    commit(folder)
    return folder


@pytest.fixture(scope="module")
def origin(address, tmp_path_factory):
    folder = repository(tmp_path_factory.mktemp("accidents") / "origin", address)
    run(folder, "dvc", "push")
    return folder


def clone_of(origin: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    run(origin, "git", "clone", "--quiet", str(origin), str(target))
    return target


def refused(folder: pathlib.Path, *command: str, **further: str) -> str:
    """The errors of a command that fails, and explains itself without a traceback."""
    done = subprocess.run(
        command, cwd=folder, env=environment() | further, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    printed = done.stdout + done.stderr
    assert done.returncode != 0, printed
    assert "Traceback" not in printed
    return "\n".join(line for line in printed.splitlines() if "ERROR" in line)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "data").iterdir())}


def keys(address: str, *, listings: bool = False) -> list[str]:
    """Of the objects in the bucket that are files, or that are listings."""
    listed = ask(f"{address}/{BUCKET}?list-type=2")
    found = re.findall("<Key>(.*?)</Key>", listed)
    return [key for key in found if key.endswith(".dir") == listings]


@pytest.mark.parametrize("accident", ["corrupted", "missing"])
def test_an_object_that_is_not_as_it_was_is_named_and_pushed_again_with_its_listing(
    accident, address, origin, tmp_path
):
    bucket = boto3.client("s3", endpoint_url=address)
    key = keys(address)[3]
    clone = clone_of(origin, tmp_path / "clone")
    if accident == "corrupted":
        bucket.put_object(Bucket=BUCKET, Key=key, Body=bytes(30_000))
    else:
        bucket.delete_object(Bucket=BUCKET, Key=key)
    said = refused(clone, "dvc", "pull")
    assert "data" in said
    assert not (clone / ".dvc/cache/files/md5" / key[-33:]).exists()
    for lost in (key, *keys(address, listings=True)):
        bucket.delete_object(Bucket=BUCKET, Key=lost)
    run(origin, "dvc", "push")
    run(clone, "dvc", "pull")
    assert contents(clone) == contents(origin)


def test_wrong_credentials_are_called_so_and_right_ones_go_on(address, origin, tmp_path):
    clone = clone_of(origin, tmp_path / "clone")
    iam = boto3.client("iam", endpoint_url=address)
    iam.create_user(UserName="ada")
    rule = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
    iam.put_user_policy(UserName="ada", PolicyName="all", PolicyDocument=text)
    made = iam.create_access_key(UserName="ada")["AccessKey"]
    right = {
        "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
    }
    ask(f"{address}/moto-api/reset-auth", "POST", b"0")
    try:
        for wrong in ({}, right | {"AWS_SECRET_ACCESS_KEY": "not this"}):
            said = refused(clone, "dvc", "pull", **wrong)
            assert re.search("Forbidden|denied|does not|signature|Access", said), said
            assert made["SecretAccessKey"] not in said
        run(clone, "dvc", "pull", **right)
    finally:
        ask(f"{address}/moto-api/reset-auth", "POST", b"inf")
    assert contents(clone) == contents(origin)


def test_a_server_that_dies_in_the_middle_of_a_push_gets_the_rest_by_the_next(tmp_path):
    address = free_address()
    server = start_s3(BUCKET, address)
    origin = repository(tmp_path / "origin", address, kilobytes=6000)
    before = contents(origin)
    pushing = subprocess.Popen(
        ["dvc", "push", "--jobs", "1"], cwd=origin, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        while not (there := keys(address)) and pushing.poll() is None:
            time.sleep(0.01)
        server.kill()
        server.wait()
        printed = pushing.communicate()[0]
    finally:
        pushing.kill()
        server.kill()
    assert 0 < len(there) < 8
    assert pushing.returncode != 0
    assert "failed to push data to the cloud" in printed
    assert "Traceback" not in printed
    assert contents(origin) == before
    server = start_s3(BUCKET, address)
    try:
        run(origin, "dvc", "push")
        clone = clone_of(origin, tmp_path / "clone")
        run(clone, "dvc", "pull")
        assert contents(clone) == before
    finally:
        server.kill()
        server.wait()
