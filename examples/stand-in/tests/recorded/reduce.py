#!/usr/bin/env python3
"""Reduces recorded traffic of a real Grafolean backend to what the conformance test compares.

    reduce.py RECORDINGS OUTPUT

RECORDINGS holds transcript.jsonl, mqtt.jsonl and python-bot-*.jsonl in the form that README.md beside this script describes.
"""

import json
import re
import sys
from email.utils import parsedate_to_datetime
from pathlib import Path

# Request headers that every request had and no answer depends on: the test sends a host and a length of its own.
DROPPED_REQUEST_HEADERS = {"host", "content-length", "user-agent"}
DEFAULT_REQUEST_HEADERS = {("accept", "*/*"), ("connection", "keep-alive"), ("accept-encoding", "gzip, deflate")}
# The time becomes `at_us`; the server's name is no header that a client looks at.
DROPPED_RESPONSE_HEADERS = {"date", "server"}
LONG_RUN = re.compile(r"(.)\1{199,}", re.DOTALL)


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def runs(text):
    """Writes 200 and more equal characters as {x*COUNT}, between two marks that occur nowhere else."""
    if text is None:
        return None
    assert "\u00abx" not in text
    return LONG_RUN.sub(lambda m: f"\u00abx{m.group(1)}*{len(m.group(0))}\u00bb", text)


def request_of(recorded, host):
    request = {"method": recorded["method"], "target": runs(recorded["path"])}
    if recorded["version"] != "HTTP/1.1":
        request["version"] = recorded["version"]
    headers = [
        [name, value]
        for name, value in recorded["headers"]
        if name.lower() not in DROPPED_REQUEST_HEADERS and (name.lower(), value) not in DEFAULT_REQUEST_HEADERS
    ]
    # An HTTP/1.0 client asks for it by this header, so there it counts.
    if recorded["version"] == "HTTP/1.0":
        headers += [h for h in recorded["headers"] if h[0].lower() == "connection"]
    if headers:
        request["headers"] = headers
    hosts = [value for name, value in recorded["headers"] if name.lower() == "host"]
    if not hosts:
        request["no_host"] = True
    elif hosts[0] != host:
        request["host"] = hosts[0]
    for key in ("body", "body_encoding", "body_omitted", "body_bytes", "chunk_size"):
        if recorded.get(key) is not None:
            request[key] = runs(recorded[key]) if key == "body" else recorded[key]
    return request


def response_of(recorded):
    if recorded is None:
        return None
    headers = [[n.lower(), v] for n, v in recorded["headers"] if n.lower() not in DROPPED_RESPONSE_HEADERS]
    response = {"status": recorded["status"]}
    if headers:
        response["headers"] = headers
    if recorded["body"]:
        response["body"] = runs(recorded["body"])
    return response


def date_of(response):
    for name, value in (response or {"headers": []})["headers"]:
        if name.lower() == "date":
            return int(parsedate_to_datetime(value).timestamp())
    return None


def body_of(exchange):
    try:
        return json.loads(exchange["response"]["body"])
    except (TypeError, ValueError):
        return None


def token_of(target):
    found = re.findall(r"[?&]b=([^&#]*)", target)
    return found[-1].lower() if found else None


def records(value):
    """Every object that shows a bot with its last login."""
    if isinstance(value, dict):
        if "last_login" in value:
            yield value
        for inner in value.values():
            yield from records(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from records(inner)


def times(transcript, mqtt, bot_of_token):
    """When each exchange was answered, in microseconds.

    The Date header is up to two seconds late (the server renews it every second or so). What is stored tells more: the exact time
    of a POST of values from its MQTT notice, the second of a creation or of a login from the record that shows it.
    """
    exact, second = {}, {}
    for i, exchange in enumerate(transcript):
        notice = mqtt.get(exchange["name"])
        if notice and exchange["request"]["method"] == "POST" and "/values" in exchange["request"]["path"]:
            for message in notice["messages"]:
                if "/values/" in message["topic"] and "/values/system." not in message["topic"]:
                    exact[i] = round(json.loads(message["payload"])["t"] * 1e6)
                    break
        body = body_of(exchange)
        if exchange["request"]["method"] == "POST" and isinstance(body, dict) and "insert_time" in body:
            second[i] = body["insert_time"]
    # A later reading tells the time of values without a notice.
    written = {}
    for i, exchange in enumerate(transcript):
        request = exchange["request"]
        if request["method"] == "POST" and "/values" in request["path"]:
            for path in re.findall(r'"p":"([^"]*)"', request.get("body") or ""):
                written[path] = i
            omitted = re.search(r"values ([a-z0-9]+)\.n0", request.get("body_omitted") or "")
            if omitted:
                written[omitted.group(1)] = i
        read = re.search(r"/values/([^?]+)\?", request["path"])
        if request["method"] == "GET" and read:
            at = written.get(read.group(1), written.get(read.group(1).split(".")[0]))
            body = body_of(exchange)
            data = body and body.get("paths", {}).get(read.group(1), {}).get("data")
            if data and at is not None and len(data) == 1 and data[0]["t"] > 1.79e9:
                exact[at] = round(data[0]["t"] * 1e6)
    # Who shows a new last login was there at that second.
    seen = {}
    requests_by_bot = {}
    for i, exchange in enumerate(transcript):
        bot = bot_of_token.get(token_of(exchange["request"]["path"]))
        if bot is not None and not any(n.lower() == "authorization" for n, _ in exchange["request"]["headers"]):
            requests_by_bot.setdefault(bot, []).append(i)
        for record in records(body_of(exchange)):
            last = record["last_login"]
            if last is None or seen.get(record["id"]) == last:
                continue
            seen[record["id"]] = last
            near = [
                k
                for k in requests_by_bot.get(record["id"], [])
                if k <= i and (date_of(transcript[k]["response"]) or 0) in (last - 2, last - 1, last)
            ]
            if near and not any(exact.get(k, 0) // 1_000_000 == last for k in near):
                second.setdefault(near[0], last)
    answer = []
    previous = 0
    for i, exchange in enumerate(transcript):
        date = date_of(exchange["response"])
        if i in exact:
            at = exact[i]
        elif i in second:
            at = second[i] * 1_000_000
            at = max(at, previous) if previous // 1_000_000 == second[i] else at
        else:
            at = max(previous, (date or previous // 1_000_000) * 1_000_000)
        answer.append(at)
        previous = max(previous, at) if i not in exact else at
    # No exchange is later than one that came after it and whose time is known.
    for i in reversed(range(len(answer) - 1)):
        if i not in exact and i not in second:
            answer[i] = min(answer[i], answer[i + 1])
    return answer


def created(transcript):
    """The ids that each exchange made the backend choose, in the order in which the stand-in chooses them."""
    ids = {i: [] for i in range(len(transcript))}
    tokens = {i: [] for i in range(len(transcript))}
    failed = {}
    known = set()
    made_account, made_bot = {}, {}
    for i, exchange in enumerate(transcript):
        request, body = exchange["request"], body_of(exchange)
        path = request["path"].split("?")[0].rstrip("/")
        status = (exchange["response"] or {}).get("status")
        if status == 201 and isinstance(body, dict) and "id" in body:
            ids[i].append(body["id"])
            known.add(body["id"])
            if path == "/api/admin/first":
                made_admin = i
            if path == "/api/admin/accounts":
                made_account[body["id"]] = i
            if path.endswith("/bots"):
                made_bot[body["id"]] = i
        elif request["method"] == "POST" and path.endswith("/entities") and status == 500:
            failed[json.loads(request["body"])["name"]] = i
        if path == "/api/auth/login" and status == 200 and len(ids[made_admin]) == 1:
            ids[made_admin].append(body["permissions"][0]["id"])
        token = re.fullmatch(r"/api/accounts/\d+/bots/(\d+)/token", path)
        if token and status == 200:
            tokens[made_bot[int(token.group(1))]].append(body["token"])
        inside = re.fullmatch(r"/api/accounts/(\d+)/(entities|credentials|sensors)", path)
        if inside and request["method"] == "GET" and isinstance(body, dict) and "list" in body:
            for item in body["list"]:
                if item["id"] in known:
                    continue
                known.add(item["id"])
                if inside.group(2) == "entities":
                    ids[failed[item["name"]]].append(item["id"])
                else:
                    # What an account has from the start: credentials are made before sensors.
                    ids[made_account[int(inside.group(1))]].append(item["id"])
    return ids, tokens


def first(transcript, name):
    return body_of(next(e for e in transcript if e["name"] == name))


def setup_of(transcript):
    """What the real backend had and no exchange made."""
    tokens = {}
    for exchange in transcript:
        token = token_of(exchange["request"]["path"])
        body = body_of(exchange)
        if token and isinstance(body, dict) and body.get("user_type") == "bot":
            tokens[body["user_id"]] = token
    # The systemwide SNMP bot never asks for its profile; it is the one whose token makes an interface.
    interface = next(e for e in transcript if e["name"] == "interface-post-systemwide-bot")
    bots = first(transcript, "admin-bots-systemwide-list")["list"]
    for bot in bots:
        bot["permissions"] = first(transcript, f"admin-sysbot-{bot['protocol']}-permissions")["list"]
        bot["token"] = tokens.get(bot["id"])
        if bot["protocol"] == "snmp":
            bot["token"] = token_of(interface["request"]["path"])
    logins = set()
    for exchange in transcript:
        for name, value in exchange["request"]["headers"]:
            found = re.fullmatch(r"Bearer \d+:(JWT-\d+)", value)
            if found and exchange["response"] and exchange["response"]["status"] < 300:
                logins.add(found.group(1))
    status = first(transcript, "status-info-ready")
    return {
        "bots": bots,
        "logins": sorted(logins),
        "new_account": {
            "credentials": first(transcript, "account-a-default-credentials")["list"],
            "sensors": first(transcript, "account-a-default-sensors")["list"],
        },
        "mqtt": [status["mqtt_ws_hostname"], status["mqtt_ws_port"]],
    }


def reduce_transcript(recordings, output):
    transcript = lines(recordings / "transcript.jsonl")
    mqtt = {line["after"]: line for line in lines(recordings / "mqtt.jsonl")}
    setup = setup_of(transcript)
    ids, tokens = created(transcript)
    bot_of_token = {bot["token"]: bot["id"] for bot in setup["bots"] if bot["token"]}
    for i, exchange in enumerate(transcript):
        if tokens[i]:
            bot_of_token[tokens[i][0]] = ids[i][0]
    at_us = times(transcript, mqtt, bot_of_token)
    with open(output / "transcript.jsonl", "w", encoding="utf-8") as file:
        write(file, {"setup": setup})
        for i, exchange in enumerate(transcript):
            line = {"name": exchange["name"], "at_us": at_us[i]}
            if ids[i]:
                line["ids"] = ids[i]
            if tokens[i]:
                line["tokens"] = tokens[i]
            for key in ("via", "note", "interim_statuses"):
                if key in exchange:
                    line[key] = exchange[key]
            line["request"] = request_of(exchange["request"], "127.0.0.1:8300")
            line["response"] = response_of(exchange["response"])
            write(file, line)


def reduce_bot(recordings, output, name):
    """Equal exchanges become one, with all the times at which they happened.

    A person changed entities between two requests of a bot; that is a line `by_a_person`, taken from the next list.
    """
    seen, changes = {}, []
    entities, own = {}, set()
    for exchange in lines(recordings / name):
        request = exchange["request"]
        host = dict(request["headers"])["Host"]
        line = {"request": request_of(request, host), "response": response_of(exchange["response"])}
        seen.setdefault(json.dumps(line), (line, []))[1].append(round(exchange["t"] * 1e6))

        path = re.fullmatch(r"/api/accounts/(\d+)/entities(?:/(\d+))?/?", request["path"].split("?")[0])
        if not path:
            continue
        if request["method"] != "GET":
            own.add(int(path.group(2) or body_of(exchange).get("id", 0)) if exchange["response"]["status"] < 300 else 0)
        elif path.group(2) is None:
            now = {e["id"]: e for e in body_of(exchange)["list"]}
            before = entities.get(path.group(1))
            if before is not None:
                removed = [k for k in before if k not in now and k not in own]
                changed = [e for k, e in now.items() if before.get(k) != e and k not in own]
                if removed or changed:
                    change = {"account": int(path.group(1)), "removed": removed, "set": changed}
                    changes.append({"at_us": [round(exchange["t"] * 1e6) - 1], "by_a_person": change})
            entities[path.group(1)] = now
            own = set()
    with open(output / name, "w", encoding="utf-8") as file:
        for line, at_us in seen.values():
            write(file, {"at_us": at_us, **line})
        for change in changes:
            write(file, change)


def write(file, value):
    file.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def main():
    recordings, output = Path(sys.argv[1]), Path(sys.argv[2])
    reduce_transcript(recordings, output)
    for path in sorted(recordings.glob("python-bot-*.jsonl")):
        reduce_bot(recordings, output, path.name)


main()
