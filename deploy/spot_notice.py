"""Turns a cloud's notice that it will take a machine away into a drain of the machine's Ray node.

Ray asks no cloud for such notices. A node that is drained gets nothing new to run, Ray tells
whoever has work there, and a run counts what it loses as preempted, which is free. It needs nothing
but Ray and the standard library, since a node has no code of ours until a job brings it.
"""

import argparse
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from ray._private import services
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated import autoscaler_pb2, gcs_pb2

_LOG = logging.getLogger("spot_notice")
# What both clouds promise at least, for a notice that doesn't say when.
_SECONDS_LEFT = {"aws": 120.0, "gcp": 30.0}
_SERVERS = {"aws": "http://169.254.169.254", "gcp": "http://metadata.google.internal"}
_POLL_SECONDS = 2.0
_ANSWER_SECONDS = 2.0
_HEAD_SECONDS = 5.0
_GONE = 404


def aws_notice(server: str) -> float | None:
    """Returns when AWS takes this machine away; None as long as it says nothing of it.

    Args:
        server: Address of the instance metadata service, version 2.

    Returns:
        Seconds since the epoch.

    Raises:
        OSError: The service doesn't answer.
    """
    token = _ask(
        f"{server}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT"
    )
    headers = {"X-aws-ec2-metadata-token": token or ""}
    told = _ask(f"{server}/latest/meta-data/spot/instance-action", headers)
    if told is None:
        return None
    try:
        return datetime.fromisoformat(json.loads(told)["time"]).timestamp()
    except (KeyError, TypeError, ValueError):  # It is a notice all the same.
        return time.time() + _SECONDS_LEFT["aws"]


def gcp_notice(server: str) -> float | None:
    """Returns when Google takes this machine away; None as long as it says nothing of it.

    Args:
        server: Address of the metadata server.

    Returns:
        Seconds since the epoch.

    Raises:
        OSError: The server doesn't answer.
    """
    url = f"{server}/computeMetadata/v1/instance/preempted"
    told = _ask(url, {"Metadata-Flavor": "Google"})
    return time.time() + _SECONDS_LEFT["gcp"] if (told or "").strip() == "TRUE" else None


def wait_for_notice(notice: Callable[[], float | None]) -> float:
    """Asks for a notice every two seconds until there is one, and returns what it says."""
    trouble = ""
    while True:
        try:
            deadline = notice()
            trouble = ""
        except OSError as error:
            deadline = None
            if str(error) != trouble:  # Once, lest months of it fill the disk.
                trouble = str(error)
                _LOG.warning("the metadata server cannot be asked: %s", trouble)
        if deadline is not None:
            return deadline
        time.sleep(_POLL_SECONDS)


def drain(head: str, deadline: float, reason: str) -> list[str]:
    """Has Ray drain the nodes of this machine; tries until then if the head doesn't answer.

    A node that is a head is left alone: it goes with its cluster.

    Args:
        head: Address of the cluster's head, as in `10.0.0.1:6379`.
        deadline: When the machine goes, in seconds since the epoch.
        reason: What Ray shows.

    Returns:
        The ids of the nodes that are drained.

    Raises:
        ConnectionError: The head didn't answer in time, or refused.
    """
    trouble: Exception | str = "it is too late"
    while time.time() < deadline:
        try:
            return _drain(head, deadline, reason)
        except Exception as error:  # noqa: BLE001 - Ray has many errors for a head that is away.
            trouble = error
            _LOG.warning("cannot drain yet: %s", error)
        time.sleep(_POLL_SECONDS)
    raise ConnectionError(f"no node was drained at {head}: {trouble}")


def _drain(head: str, deadline: float, reason: str) -> list[str]:
    client = GcsClient(address=head)
    here = services.get_node_ip_address(head)
    mine = [
        node.node_id.hex()
        for node in client.get_all_node_info(timeout=_HEAD_SECONDS).values()
        if node.node_manager_address == here
        and node.state == gcs_pb2.GcsNodeInfo.ALIVE
        and not node.is_head_node
    ]
    for node in mine:
        accepted, refusal = client.drain_node(
            node, autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION, reason, int(deadline * 1000)
        )
        if not accepted:
            raise ConnectionError(f"Ray refuses to drain {node}: {refusal}")
    return mine


def _ask(url: str, headers: Mapping[str, str], method: str = "GET") -> str | None:
    """Returns what a metadata server says; None if it knows nothing of what it is asked."""
    request = Request(url, headers=dict(headers), method=method)  # noqa: S310 - our own constants.
    try:
        # No proxy: the address means another machine to everyone but this one.
        with build_opener(ProxyHandler({})).open(request, timeout=_ANSWER_SECONDS) as answer:
            told: bytes = answer.read()
    except HTTPError as error:
        if error.code == _GONE:
            return None
        raise
    return told.decode("utf-8", "replace")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = argparse.ArgumentParser(description="Drain this machine's Ray node before it goes.")
    made.add_argument(
        "--address", default=os.environ.get("RAY_ADDRESS"), help="IP:PORT of the head"
    )
    made.add_argument("--server", metavar="URL", help="the metadata server; default: the cloud's")
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument("--cloud", choices=tuple(_SERVERS), help="wait for this cloud's notice")
    which.add_argument("--now", type=float, metavar="SECONDS", help="the machine goes by then")
    return made


def main() -> None:
    """Waits for a notice, or takes the call as one, and drains."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = parser().parse_args()
    if not options.address:
        parser().error("name the head with --address, or in RAY_ADDRESS")
    if options.now is None:
        ask = {"aws": aws_notice, "gcp": gcp_notice}[options.cloud]
        deadline = wait_for_notice(partial(ask, options.server or _SERVERS[options.cloud]))
        reason = f"{options.cloud} takes this machine away"
    else:
        deadline, reason = time.time() + options.now, "this machine is shut down"
    _LOG.info("this machine goes in %.0f s", deadline - time.time())
    _LOG.info("drained: %s", ", ".join(drain(options.address, deadline, reason)) or "no node here")


if __name__ == "__main__":
    main()
