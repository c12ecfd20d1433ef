# SPDX-License-Identifier: MIT
"""Rows about the program itself: memory, start, reload, and how all of it grows."""

import struct
import time

from benchlab import FIRST_ADDRESS, FORWARDER_CPU, SINK, BenchLab, cpu_seconds, pin, resident_megabytes
from contenders import GATEWAY, PORTS, Missing, policy, running
from figures import Row
from rows_dns import OUTSTANDING, SOCKETS, cpu_per_question, label
from rows_flow import measure_forwarding

RULES = (100, 1000, 10000)
LEASES = (0, 10000, 100000)
RELOADS = 4
RELOAD_PAUSE = 0.15        # seconds between reloads
BACKGROUND = 10            # questions under way while a policy is reloaded
NETWORKS, OWN_RULES, SHARED_LISTS, SHARED_RULES = 250, 24, 10, 400  # 250 * 24 + 10 * 400 = 10,000 rules
FLOWS_OPEN = 50000
FLOW_SOCKETS = 100
FLOWS_SEEN = 4             # seconds until the program has looked at new flows once
FLOW_ADDRESSES = FLOWS_OPEN // FLOW_SOCKETS // 32 * 32 + 32  # whole batches of bench-udpflood


def memory(lab, options):
    """Resident memory by leases."""
    row = Row("memory", "Resident memory",
              "All processes of the program (Sluice has two), what they share counted once. With so many leases (addresses in the set);"
              " Sluice has the names cached that they came from, its cache being always on, those of peers are off.")
    for count in LEASES:
        row.measure(f"leases{count}", f"{count:,} leases", "MB", "less")
    lab.place(0)
    for who in ("sluice", "smartdns", "dnsmasq"):
        for count in LEASES if who == "sluice" or not options.quick else LEASES[:2]:
            try:
                with running(lab, who) as pid:
                    if count:
                        lab.fill(count)
                    row.add(label(who), **{f"leases{count}": resident_megabytes(pid)})
            except Missing as missing:
                if str(missing) not in row.notes:
                    row.notes.append(str(missing))
        options.say(f"  memory: {who}")
    return row


def start(lab, options):
    """From exec to healthy."""
    row = Row("start", "Start to healthy",
              "From the start of the program to the first good answer to `health`: the table is in the kernel, the listeners are open. "
              "Two networks have so many rules for names together; there is no state of before.")
    row.measure("start", "start to healthy", "ms", "less")
    for number in range(options.rounds):
        for rules in RULES:
            lab.clear()
            row.add(f"{rules:,} rules", start=lab.start_sluice(policy(rules=rules // 2)) * 1000)
            lab.gateway.stop()
        options.say(f"  start: round {number + 1} of {options.rounds}")
    return row


def read_trace(path):
    """[(sent, took)] in ns, of a file that bench-dnsload -w has written."""
    with open(path, "rb") as file:
        return list(struct.iter_unpack("=QQ", file.read()))


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def during_reloads(lab, texts):
    """Reload each text while questions are asked. Return: [ms of each], the load's figures, [us of questions under way during one]."""
    trace = f"{lab.directory}/trace"
    process = lab.start_load("dnsload", "-o", BACKGROUND, "-k", SOCKETS, "-t", len(texts) * (RELOAD_PAUSE + 0.1) + 0.3, "-w", trace, GATEWAY)
    time.sleep(0.2)
    spans = []
    for text in texts:
        lab.gateway.write_policy(text)
        begin = time.monotonic_ns()
        answer = lab.control(command="reload")
        spans.append((begin, time.monotonic_ns()))
        assert answer["ok"], answer
        time.sleep(RELOAD_PAUSE)
    said = lab.load_result(process)
    took = [us / 1000 for sent, us in read_trace(trace) if any(sent < end and sent + us > begin for begin, end in spans)]
    return [(end - begin) / 1e6 for begin, end in spans], said, took


def reload(lab, options):
    """One rule changed."""
    row = Row("reload", "Reload, one rule changed",
              "`sluice reload` of a policy in which one name of so many differs, from the request to the answer, which comes when the "
              f"kernel has the new rules. Meanwhile names are asked for, {BACKGROUND} at a time: "
              "p99 of those questions that were under way during a reload.")
    row.measure("reload", "reload", "ms", "less")
    row.measure("p99", "questions during it, p99", "ms", "less")
    lost = 0
    lab.place(0)
    for number in range(options.rounds):
        for rules in RULES:
            text = policy(rules=rules // 2)
            with running(lab, "sluice", text=text):
                spans, said, took = during_reloads(lab, [text.replace(" r1.rules", f" changed{i}.rules", 1) for i in range(RELOADS)])
            for span in spans:
                row.add(f"{rules:,} rules", reload=span)
            row.add(f"{rules:,} rules", p99=percentile(took, 0.99) / 1000)
            lost += said["bad"] + said["lost"]
        options.say(f"  reload: round {number + 1} of {options.rounds}")
    row.fact("questions that were answered wrongly or not at all", lost)
    return row


# --- many networks ---

def many_networks():
    return {f"n{i}": i for i in range(NETWORKS)}


def many_rules(changed=""):
    text = "[gateway]\nuplink = up0\n\n[upstream]\nserver = 45.9.0.53\n"
    for one in range(SHARED_LISTS):
        names = "\n".join(f"    s{one}-{i}.rules.example" for i in range(SHARED_RULES))
        text += f"\n[rules list{one}]\nallow =\n{names}\n"
    for name, number in many_networks().items():
        names = "\n".join(f"    o{number}-{i}{changed if number == 1 else ''}.rules.example" for i in range(OWN_RULES - 1))
        text += (f"\n[network {name}]\nsubnet = 10.201.{number}.0/24\nuse = list{number % SHARED_LISTS}\nports = {PORTS}\n"
                 f"allow = *.bench.example\n{names}\n")
    return text


def open_flows(lab):
    """FLOWS_OPEN UDP flows, from the first app. Return: entries in the gateway's table of flows."""
    lab.load("udpflood", "-k", FLOW_SOCKETS, "-a", FLOW_ADDRESSES, "-n", FLOWS_OPEN, "-r", 100000, FIRST_ADDRESS, SINK)
    return int(lab.gw.read_sysctl("net.netfilter.nf_conntrack_count"))


def measure_questions(lab, options, pid):
    before = cpu_seconds(pid)
    said = lab.load("dnsload", "-o", OUTSTANDING, "-k", SOCKETS, "-f", 200000, "-t", options.seconds, lab.gateway_of(next(iter(lab.networks))))
    return {"qps": said["qps"], "cpu": cpu_per_question(pid, before, said)}, said["bad"] + said["lost"]


def scale(lab, options):
    """A small gateway and a large one, side by side."""
    row = Row("scale", f"Scale: {NETWORKS} networks, 10,000 rules, {LEASES[-1]:,} leases, {FLOWS_OPEN:,} flows",
              f"The same measurements with 2 networks and a rule each, and with {NETWORKS} networks, 10,000 rules ({SHARED_LISTS} shared"
              f" lists of {SHARED_RULES}, {OWN_RULES} rules of each network's own), {LEASES[-1]:,} leases spread over all networks, and "
              f"{FLOWS_OPEN:,} flows in the kernel's table. Questions and forwarding as in the rows above.")
    row.base = "small"
    row.measure("start", "start to healthy", "ms", "less")
    row.measure("reload", "reload, one rule changed", "ms", "less")
    row.measure("memory", "memory", "MB", "less")
    row.measure("qps", "cold answers/s", "")
    row.measure("cpu", "CPU per cold question", "us", "less")
    row.measure("udp", "UDP 64 B", "packets/s")
    row.measure("tcp", "TCP", "Gbit/s")
    row.measure("cps", "connections", "/s")
    lost = 0
    small = (lab, [policy(), policy(keys="deny = one.more.example\n")], lambda: lab.fill(FLOW_ADDRESSES))
    with BenchLab(networks=many_networks(), apps={name: "app" for name in many_networks()}) as big:
        large = (big, [many_rules(), many_rules("x")], lambda: crowd(big))
        for number in range(max(options.rounds // 2, 1)):
            for who, (world, texts, prepare) in (("small", small), ("large", large)):
                found, wrong, crowded = one_size(world, texts, prepare, options)
                row.add(who, **found)
                lost += wrong
                options.say(f"  scale: {who}, round {number + 1}")
            if number == 0:
                row.fact("large: leases, flows in the kernel's table", crowded)
    row.fact("questions that were answered wrongly or not at all", lost)
    return row


def crowd(world):
    """Leases in all networks, of different names, and many flows of one of them. Return: how many there are, as text."""
    for index, network in enumerate(world.networks):
        world.fill(LEASES[-1] // NETWORKS, network, first=index * (LEASES[-1] // NETWORKS))
    world.fill(FLOW_ADDRESSES, next(iter(world.networks)))
    flows = open_flows(world)
    time.sleep(FLOWS_SEEN)
    return f"{world.control(command='health')['leases']:,}, {flows:,}"


def one_size(world, texts, prepare, options):
    """Return: what was measured, how many questions went wrong, what prepare() said."""
    world.clear()
    world.place(0)
    found = {"start": world.start_sluice(texts[0]) * 1000}
    try:
        pid = world.gateway.process.pid
        pin(pid, FORWARDER_CPU)
        crowded = prepare()
        found["memory"] = resident_megabytes(pid)
        questions, wrong = measure_questions(world, options, pid)
        forwarding, _ = measure_forwarding(world, options)
        world.gateway.write_policy(texts[1])
        begin = time.monotonic()
        assert world.control(command="reload")["ok"]
        found["reload"] = (time.monotonic() - begin) * 1000
    finally:
        world.clear()
    return found | questions | forwarding, wrong, crowded


ROWS = {"memory": memory, "start": start, "reload": reload, "scale": scale}
