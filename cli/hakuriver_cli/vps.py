"""`hakuriver vps …`: machines of one's own inside the cluster."""

from __future__ import annotations

from hakuriver_cli.tree import lazy, new_app

app = new_app("vps", "Make and control VPS: machines of your own, reached by SSH.")
lazy(app, "vps_create:create", "create", "Make a VPS, and print its id. Log in with `hakuriver ssh NAME`.")
lazy(app, "vps_control:list_vps", "list", "List VPS, newest first.")
lazy(
    app,
    "vps_control:status",
    "status",
    "Show all that is known of VPS, what they used and their history included.",
)
lazy(app, "vps_control:kill", "kill", "End VPS, and what is in them.")
lazy(
    app,
    "vps_control:stop",
    "stop",
    "Stop VPS: they hold nothing any more, and their nodes keep what is in them until they are started again.",
)
lazy(
    app,
    "vps_control:start",
    "start",
    "Start stopped VPS again, each on its node, as soon as there is room.",
)
lazy(app, "vps_control:restart", "restart", "Stop VPS and start them again.")
lazy(app, "vps_control:extend", "extend", "Give a VPS with a time limit more time.")
lazy(
    app,
    "vps_control:snapshot",
    "snapshot",
    "Keep what is in a VPS now as a version of the environment `vps-ID`, which is yours alone.",
)
lazy(app, "vps_control:snapshots", "snapshots", "List the snapshots of a VPS, newest first.")
lazy(
    app,
    "vps_control:restore",
    "restore",
    "Have a VPS begin anew from one of its snapshots: what is in it now is gone.",
)
lazy(
    app,
    "vps_control:logs",
    "logs",
    "Print what the first program of VPS wrote, and why its start failed where it did.",
)
lazy(app, "vps_control:pause", "pause", "Freeze VPS; they keep what they hold, and connections wait.")
lazy(app, "vps_control:resume", "resume", "Let paused VPS go on.")
lazy(
    app,
    "vps_control:share",
    "share",
    "Let other users in, by ssh, terminal, forward and cp. Killing it stays yours.",
)
lazy(app, "vps_control:unshare", "unshare", "Let users in no more; their connections end.")
