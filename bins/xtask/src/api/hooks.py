"""Keeps schemathesis from taking away what it asks with: its own session, and the person whose session that is."""

import json
import os
import urllib.request

import schemathesis


def ask(path):
    headers = {"Authorization": f"Bearer {os.environ['WARREN_TOKEN']}"}
    request = urllib.request.Request(os.environ["WARREN_URL"] + "/api/v1" + path, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


OWN = {ask("/me")["user"]["id"]} | {token["id"] for token in ask("/tokens")["tokens"] if token["current"]}


@schemathesis.hook
def before_call(context, case, **kwargs):
    if case.method.upper() in ("DELETE", "PATCH") and (case.path_parameters or {}).get("id") in OWN:
        case.path_parameters["id"] = "not-ones-own"
