"""Environments on the Host: prepared by hand in a container, packed into versions on the share, and looked after."""

from hakuriver_host.services.environments.catalogue import list_environments
from hakuriver_host.services.environments.pins import Pins
from hakuriver_host.services.environments.service import Environments

__all__ = ["Environments", "Pins", "list_environments"]
