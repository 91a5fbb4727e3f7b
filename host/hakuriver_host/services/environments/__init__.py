"""Environments on the Host: prepared by hand in a container, packed into versions on the share, and looked after."""

from hakuriver_host.services.environments.catalogue import Versions, current_version, list_environments
from hakuriver_host.services.environments.service import Environments

__all__ = ["Environments", "Versions", "current_version", "list_environments"]
