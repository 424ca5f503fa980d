"""A router that lies. Usage: hostile_router.py ADDRESS VICTIM MODE_FILE; what it is asked, it prints.

Every question is answered as the mode says that stands in the file then.
"""

import http.server
import socket
import struct
import sys
import threading

ADDRESS, VICTIM, MODE_FILE = sys.argv[1:]
HTTP = 5000
SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"


def mode():
    with open(MODE_FILE, encoding="utf-8") as file:
        return file.read().strip()


def say(what):
    # In one piece: several threads speak.
    sys.stdout.write(f"{mode()} {what}\n")
    sys.stdout.flush()


def pcp(request, external, lifetime=600, result=0, port=None):
    """An answer to a PCP request for a mapping."""
    nonce, protocol, inside = request[24:36], request[36:40], request[40:42]
    inner = b"\0" * 10 + b"\xff\xff" + socket.inet_aton(external)
    head = struct.pack("!BBBBII", 2, 0x81, 0, result, lifetime, 1_000) + b"\0" * 12
    return head + nonce + protocol + inside + (struct.pack("!H", port) if port else inside) + inner


def pcp_answer(request):
    return {
        "short": pcp(request, "8.8.8.8")[:28],
        "nothing": pcp(request, "8.8.8.8", lifetime=0),
        "nowhere": pcp(request, "127.0.0.1", port=22),
        "elsewhere": pcp(request, "8.8.8.8", result=2),
        "huge": b"\xff" * 60_000,
        "liar": pcp(request, "8.8.8.8"),
    }.get(mode())


def nat_pmp_answer(request):
    op = request[1]
    address = lambda ip: struct.pack("!BBHI", 0, 128, 0, 1_000) + socket.inet_aton(ip)
    mapped = lambda inside, lifetime: struct.pack("!BBHIHHI", 0, 128 + op, 0, 1_000, inside, 22, lifetime)
    inside = struct.unpack("!H", request[4:6])[0] if op else 0
    answers = {
        "short": (b"\0\x80\0", b"\0"),
        "nothing": (address("0.0.0.0"), mapped(inside, 600)),
        "elsewhere": (address("8.8.8.8"), mapped(inside + 1, 600)),
        "silent": (address("8.8.8.8"), mapped(inside, 0)),
        "huge": (b"\xff" * 60_000, b"\xff" * 60_000),
    }.get(mode())
    return answers and answers[min(op, 1)]


def serve_datagrams():
    here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here.bind((ADDRESS, 5351))
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other.bind((ADDRESS, 5352))
    while True:
        request, sender = here.recvfrom(2_000)
        is_pcp = request[0] == 2
        say("pcp" if is_pcp else f"nat-pmp {request[1]}")
        if is_pcp and mode() == "short":
            # All in order, but from another port.
            other.sendto(pcp(request, "8.8.8.8"), sender)
        answer = pcp_answer(request) if is_pcp else nat_pmp_answer(request)
        if answer:
            here.sendto(answer, sender)


def serve_searches():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("0.0.0.0", 1900))
    member = socket.inet_aton("239.255.255.250") + socket.inet_aton(ADDRESS)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    while True:
        request, sender = sock.recvfrom(2_000)
        if b"M-SEARCH" not in request:
            continue
        say("search")
        where = f"http://{VICTIM}/" if mode() == "short" else f"http://{ADDRESS}:{HTTP}/root.xml"
        answer = f"HTTP/1.1 200 OK\r\nLOCATION: {where}\r\nST: {SERVICE}\r\nUSN: uuid:1\r\n\r\n"
        sock.sendto(answer.encode(), sender)


def description(control):
    return f"""<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><serviceList><service>
        <serviceType>{SERVICE}</serviceType><SCPDURL>/scpd.xml</SCPDURL><controlURL>{control}</controlURL>
        </service></serviceList></device></root>"""


SCPD = "<scpd><actionList>" + "".join(
    f"<action><name>{action}</name><argumentList>"
    + "".join(f"<argument><name>{name}</name><direction>in</direction></argument>" for name in names.split())
    + "</argumentList></action>"
    for action, names in {
        "AddPortMapping": "NewRemoteHost NewExternalPort NewProtocol NewInternalPort NewInternalClient NewEnabled "
        "NewPortMappingDescription NewLeaseDuration",
        "DeletePortMapping": "NewRemoteHost NewExternalPort NewProtocol",
        "GetExternalIPAddress": "",
    }.items()
) + "</actionList></scpd>"

BOMB = "<!DOCTYPE b [<!ENTITY a0 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10)
) + "]><root>&a9;</root>"


class Device(http.server.BaseHTTPRequestHandler):
    def reply(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        say(f"get {self.path}")
        if self.path == "/scpd.xml":
            return self.reply(SCPD)
        if mode() == "nothing":
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(b"<device>" * 1_000)
        if mode() == "elsewhere":
            return self.reply(description(f"http://{VICTIM}/control"))
        if mode() == "silent":
            return self.reply(BOMB)
        return self.reply(description("/control"))

    def do_POST(self):
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        action = self.headers["SOAPAction"].strip('"').rpartition("#")[2]
        say(f"post {action}")
        address = "<NewExternalIPAddress>0.0.0.0</NewExternalIPAddress>" if "External" in asked else ""
        self.reply(f"""<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>
            <u:{action}Response xmlns:u="{SERVICE}">{address}</u:{action}Response></s:Body></s:Envelope>""")

    def log_message(self, *_):
        pass


for task in (serve_datagrams, serve_searches):
    threading.Thread(target=task, daemon=True).start()
server = http.server.ThreadingHTTPServer((ADDRESS, HTTP), Device)
say("ready")
server.serve_forever()
