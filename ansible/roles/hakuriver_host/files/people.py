"""Tells which people have an account on this machine, and a token that the Host knows: people.py URL CA_FILE NAME...

A line for each: the name, their home, and `there`, or nothing where they need a token. While the Host does not answer,
what they have is taken to be right. Standard library alone.
"""

import os
import pwd
import ssl
import sys
import urllib.error
import urllib.request

SECONDS = 5


def main():
    url, ca, *names = sys.argv[1:]
    secure = {"context": ssl.create_default_context(cafile=ca)} if url.startswith("https:") else {}
    handlers = [urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(**secure)] if secure else [])]
    ask = urllib.request.build_opener(*handlers)
    for name in names:
        try:
            home = pwd.getpwnam(name).pw_dir
        except KeyError:
            continue
        if os.path.isdir(home):
            token = read(os.path.join(home, ".hakuriver", "token"))
            print(name, home, "there" if token and is_known(ask, url, token) else "", sep="\t")


def read(path):
    try:
        with open(path, encoding="ascii") as file:
            return file.readline(200).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def is_known(ask, url, token):
    headers = {"Authorization": "Bearer " + token}
    request = urllib.request.Request(url + "/api/whoami", headers=headers)  # noqa: S310 - the Host's own
    try:
        ask.open(request, timeout=SECONDS).close()
    except urllib.error.HTTPError as error:
        return error.code != 401
    except (OSError, ValueError):
        return True
    return True


main()
