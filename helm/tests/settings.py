"""Gives every settings file of the rendered objects to the program that is to take it. Arguments: the objects, the programs' folder."""

import os
import pathlib
import subprocess
import sys
import tempfile

import yaml

PROGRAMS = {"node": "ordering-service", "gateway": "mls-gateway"}

objects, folder = sys.argv[1:]
refused = False
checked = 0
for o in yaml.safe_load_all(pathlib.Path(objects).read_text()):
    if not o or o["kind"] != "ConfigMap" or "settings.toml" not in o["data"]:
        continue
    program = PROGRAMS[o["metadata"]["labels"]["app.kubernetes.io/component"]]
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(o["data"]["settings.toml"])
        file.flush()
        # What the chart gives by the environment.
        env = {"PATH": os.environ["PATH"], "CONCORDAT_ORDERING": "node:7100", "CONCORDAT_RELAY_LISTEN": "0.0.0.0:7402"}
        command = [f"{folder}/{program}", "serve", "--config", file.name, "--print-config"]
        said = subprocess.run(command, env=env, capture_output=True, text=True)
    checked += 1
    if said.returncode:
        print(f"{program}: {said.stderr.strip()}", file=sys.stderr)
        refused = True
if not checked:
    print("no settings were found", file=sys.stderr)
sys.exit(refused or not checked)
