"""Environments on the Host: prepared by hand in a container, packed into versions on the share, and looked after."""

from hakuriver_host.services.environments.catalogue import current_version, list_environments
from hakuriver_host.services.environments.service import Environments

__all__ = ["Environments", "current_version", "list_environments"]
