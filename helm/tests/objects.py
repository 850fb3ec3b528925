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
    for owner in [o for o in objects if o["kind"] == "StatefulSet"]:
        who = at + owner["metadata"]["name"]
        check(owner["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}, who + ": volumes go")
        claims = [claim["metadata"]["name"] for claim in owner["spec"].get("volumeClaimTemplates", [])]
        mounts = owner["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        check(claims == ["data"] and {"name": "data", "mountPath": "/data"} in mounts, who + " keeps nothing")
        spread = {c["topologyKey"] for c in owner["spec"]["template"]["spec"]["topologySpreadConstraints"]}
        check(spread == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}, who + f" is spread over {spread}")
        headless = named(objects, "Service", owner["spec"]["serviceName"])
        check(headless and headless[0]["spec"].get("clusterIP") == "None", who + " has no headless service")
    for node in named(objects, "StatefulSet", "-node"):
        environment = {e["name"]: e.get("value", "") for e in node["spec"]["template"]["spec"]["containers"][0]["env"]}
        joins = environment["CONCORDAT_JOIN"].split(",")
        check("-ordering." in joins[0], at + "new nodes do not ask the others to let them in")
        check(("site-a" in environment["CONCORDAT_JOIN"]) == (name == "site-b"), at + f"nodes join {joins}")
        services = [o for o in named(objects, "Service", "") if "-node-" in o["metadata"]["name"]]
        check(len(services) in (0, node["spec"]["replicas"]), at + f"{len(services)} services of single nodes")
        grace = node["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        check(grace >= 45, at + f"nodes are given only {grace} s to hand over")


    # Before fewer replicas the voters go, and the upgrade fails where they may not.
    shrinks = named(objects, "Job", "-shrink")
    check(len(shrinks) == (0 if name == "nodes-only" else 1), at + "shrink jobs")
    for job in shrinks:
        check(job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade", at + "the shrink job does not run before upgrades")
        command = job["spec"]["template"]["spec"]["containers"][0]["command"]
        nodes = named(objects, "StatefulSet", "-node")[0]["spec"]["replicas"]
        check(command.count("--keep") == nodes and "--site" in command, at + f"the shrink job says {command}")
        check(job["spec"]["template"]["spec"]["restartPolicy"] == "Never", at + "the shrink job hides its failure")

    # `helm test` is there wherever there are gateways and a certificate for it.
    tests = [o for o in objects if o["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"]
    check(len(tests) == (0 if name in ("nodes-only", "given-secrets") else 1), at + "pods of helm test")
    for pod in tests:
        command = pod["spec"]["containers"][0]["command"]
        check(command[0] == "mls-client" and "check" in command, at + f"helm test says {command}")

    # The autoscaler decides how many gateways there are, or the values do.
    for owner in named(objects, "StatefulSet", "-gateway"):
        scalers = [o for o in objects if o["kind"] == "HorizontalPodAutoscaler"]
        check(("replicas" in owner["spec"]) != bool(scalers), at + "the number of gateways is decided twice, or not")
        for scaler in scalers:
            target = scaler["spec"]["scaleTargetRef"]
            check((target["kind"], target["name"]) == ("StatefulSet", owner["metadata"]["name"]), at + f"{target} is scaled")
            check(scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300, at + "gateways go at once")

    # No pod is without a policy, and nodes talk Raft with nodes only.
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    check(bool(policies) == (name != "given-secrets"), at + "network policies")
    for owner, own, _ in pods(objects):
        selected = [p for p in policies if p["spec"]["podSelector"]["matchLabels"].items() <= own.items()]
        check(len(selected) == 1 or not policies, at + f"{owner['metadata']['name']} has {len(selected)} network policies")
        for policy in selected:
            check(set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}, at + f"{policy['metadata']['name']} leaves one way open")
    for policy in named(objects, "NetworkPolicy", "-node"):
        for rule in policy["spec"]["ingress"]:
            check(rule.get("from"), at + "nodes are open to everybody")
            for peer in rule["from"]:
                if rule["ports"] == [{"port": "peers"}] and "podSelector" in peer:
                    component = peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
                    check(component == "node", at + f"{component} may connect where Raft is spoken")

    alerts = yaml.safe_load((pathlib.Path(__file__).parent.parent / "concordat/alerts/concordat.yaml").read_text())
    monitors = [o for o in objects if o["kind"] == "ServiceMonitor"]
    for monitor in monitors:
        wanted = monitor["spec"]["selector"]["matchExpressions"][0]["values"]
        scraped = [
            o for o in objects if o["kind"] == "Service"
            and o["metadata"]["labels"].get("app.kubernetes.io/component") in wanted
            and any(port["name"] == "admin" for port in o["spec"]["ports"])
        ]
        check(len(scraped) == 2, at + f"{len(scraped)} services are scraped")
    check(len(monitors) == (name == "all-on"), at + "service monitors")
    for o in objects:
        if o["kind"] == "PrometheusRule":
            check(o["spec"]["groups"] == alerts["groups"], at + "the alerts are not those of alerts/concordat.yaml")
        if o["kind"] == "ConfigMap" and o["metadata"]["name"].endswith("-dashboards"):
            check(len(o["data"]) == 3, at + "expected three dashboards")
            for text in o["data"].values():
                check(json.loads(text)["panels"], at + "a dashboard without panels")

for problem in problems:
    print(problem, file=sys.stderr)
sys.exit(bool(problems))
