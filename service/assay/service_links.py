"""The variables that Kubernetes and Docker set for services whose names begin as ours do."""

import re
from collections.abc import Mapping

# Kubernetes describes each service of the namespace in the environment of every container, and
# Docker each linked container. The variables of a service `assay` or `assay-…` have our prefix.
SERVICE_LINK_NAME = re.compile(
    r"ASSAY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
SERVICE_LINK_URL_NAME = re.compile(r"ASSAY_(\w+_)?PORT")
SERVICE_LINK_URL = re.compile(r"(tcp|udp|sctp)://")


def find_service_links(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that describe services named `assay` or `assay-…` in Kubernetes.

    Their names are `{SERVICE}_SERVICE_HOST`, `{SERVICE}_SERVICE_PORT`, `{SERVICE}_PORT_80_TCP`, …,
    and `{SERVICE}_PORT`, whose value is a URL.
    """
    return sorted(
        name
        for name, value in environment.items()
        if SERVICE_LINK_NAME.fullmatch(name)
        or (SERVICE_LINK_URL_NAME.fullmatch(name) and SERVICE_LINK_URL.match(value))
    )
