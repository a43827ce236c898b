#!/usr/bin/env python3
"""Compares the requests of a user, from the audit log of the API server, with its permissions.

usage: rights.py refused AUDIT_LOG USER [SINCE]    requests that were forbidden
       rights.py unused AUDIT_LOG USER ROLE...     permissions of the roles (as JSON) that no request used

Prints the result; the exit code is 1 if there are any.
"""
import json
import sys


def requests(log, user, since=""):
    """Each request of the user: verb, API group, resource with its subresource, and the answer's code."""
    with open(log, encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):  # being written
                return
            event = json.loads(line)
            if event["user"].get("username") != user or "objectRef" not in event or event["requestReceivedTimestamp"] < since:
                continue
            target = event["objectRef"]
            resource = "/".join(filter(None, (target.get("resource"), target.get("subresource"))))
            yield event["verb"], target.get("apiGroup", ""), resource, event.get("responseStatus", {}).get("code")


def rights(paths):
    """Each (verb, API group, resource) that the roles grant."""
    for path in paths:
        with open(path, encoding="utf-8") as content:
            rules = json.load(content)["rules"]
        for rule in rules:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    yield from ((verb, group, resource) for verb in rule["verbs"])


def main():
    question, log, user, *rest = sys.argv[1:]
    seen = list(requests(log, user, *rest) if question == "refused" else requests(log, user))
    if not seen:
        sys.exit(f"{user} made no request")
    if question == "refused":
        found = {f"{verb} {resource}" for verb, _, resource, code in seen if code == 403}
    else:
        granted, used = set(rights(rest)), {request[:3] for request in seen if request[3] != 403}
        found = {f"{verb} {resource}" for verb, _, resource in granted - used}
        if not found:
            print(f"{len(granted)} permissions, {len(seen)} requests")
    if found:
        sys.exit(f"{question}: " + ", ".join(sorted(found)))


if __name__ == "__main__":
    main()
