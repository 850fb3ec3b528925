"""What the rendered objects have to be, beyond the schemas. Its argument is the folder with the rendered files."""

import json
import pathlib
import sys

import yaml

problems = []


def check(condition, message):
    if not condition:
        problems.append(message)


def pods(objects):
    for o in objects:
        if o["kind"] in ("StatefulSet", "Deployment", "Job"):
            yield o, o["spec"]["template"]["metadata"]["labels"], o["spec"]["template"]["spec"]
        elif o["kind"] == "Pod":
            yield o, o["metadata"]["labels"], o["spec"]


def named(objects, kind, suffix):
    return [o for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith(suffix)]


for path in sorted(pathlib.Path(sys.argv[1]).glob("*.*.yaml")):
    name, when = path.name.split(".")[:2]
    objects = [o for o in yaml.safe_load_all(path.read_text()) if o]
    at = f"{name} ({when}): "

    for owner, _, spec in pods(objects):
        who = at + owner["kind"] + " " + owner["metadata"]["name"]
        check(spec["securityContext"].get("runAsNonRoot") is True, who + " may run as root")
        check(spec.get("automountServiceAccountToken") is False, who + " gets a token of the Kubernetes API")
        check(spec.get("enableServiceLinks") is False, who + " gets variables named CONCORDAT_* from Kubernetes")
        for container in spec["containers"]:
            context = container["securityContext"]
            check(context.get("readOnlyRootFilesystem") is True, who + " can write to its root file system")
            check(context.get("allowPrivilegeEscalation") is False, who + " can gain privileges")
            check(context["capabilities"]["drop"] == ["ALL"], who + " keeps capabilities")
            volumes = {v["name"] for v in spec["volumes"]} | {
                c["metadata"]["name"] for c in owner["spec"].get("volumeClaimTemplates", [])
            }
            for mount in container["volumeMounts"]:
                check(mount["name"] in volumes, who + f" mounts {mount['name']}, which it does not have")
            check(container["resources"]["limits"].get("memory"), who + " has no bound on its memory")

    # Every service, budget and policy means pods that exist.
    labels = [l for _, l, _ in pods(objects)]
    for o in objects:
        selector = {
            "Service": lambda o: o["spec"].get("selector"),
            "PodDisruptionBudget": lambda o: o["spec"]["selector"]["matchLabels"],
        }.get(o["kind"], lambda o: None)(o)
        if selector:
            wanted = {k: v for k, v in selector.items() if not k.startswith("statefulset.kubernetes.io")}
            check(any(wanted.items() <= l.items() for l in labels), at + f"{o['kind']} {o['metadata']['name']} selects nothing")

    # The secrets that pods mount are those that certificates make.
    made = {o["spec"]["secretName"] for o in objects if o["kind"] == "Certificate"}
    for owner, _, spec in pods(objects):
        for volume in spec["volumes"]:
            secret = volume.get("secret", {}).get("secretName")
            if secret and made and volume["name"] == "tls":
                check(secret in made, at + f"{owner['metadata']['name']} mounts {secret}, which no certificate makes")
    for o in objects:
        if o["kind"] == "Certificate":
            role = o["metadata"]["name"].rsplit("-", 1)[1]
            uris = o["spec"]["uris"]
            check(len(uris) == 1 and f"/concordat/{role}/" in uris[0], at + f"the certificate of {role} stands for {uris}")

    # A cluster is formed by an installation of the first site, and by nothing else.
    bootstraps = named(objects, "Job", "-bootstrap")
    check(len(bootstraps) == (1 if when == "install" and name != "site-b" else 0), at + "bootstrap jobs")
    for job in bootstraps:
        command = job["spec"]["template"]["spec"]["containers"][0]["command"]
        nodes = named(objects, "StatefulSet", "-node")[0]["spec"]["replicas"]
        check(command.count("--node") == nodes, at + "the bootstrap job does not name every node")
        check("--unless-formed" in command, at + "the bootstrap job can form a cluster twice")
    for node in named(objects, "StatefulSet", "-node"):
        check(node["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}, at + "volumes go")
        grace = node["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        check(grace >= 45, at + f"nodes are given only {grace} s to hand over")

    for o in objects:
        if o["kind"] == "PrometheusRule":
            check(o["spec"]["groups"], at + "no alerts")
        if o["kind"] == "ConfigMap" and o["metadata"]["name"].endswith("-dashboards"):
            check(len(o["data"]) == 3, at + "expected three dashboards")
            for text in o["data"].values():
                check(json.loads(text)["panels"], at + "a dashboard without panels")

for problem in problems:
    print(problem, file=sys.stderr)
sys.exit(bool(problems))
