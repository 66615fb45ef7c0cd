#!/usr/bin/python3
"""GStreamer's webrtcbin as WHIP publisher or WHEP player. Needs Debian's own python3 (python3-gi), not the .venv.

  gst_webrtc.py whip URL [SECONDS]      H.264 Constrained Baseline 640x360 at 30 fps and Opus
  gst_webrtc.py whep URL [SECONDS]      counts decoded pictures and sound buffers
GST_OWN_CERTIFICATE=1 keeps the RSA certificate that GStreamer 1.22 makes; otherwise it gets an ECDSA one, which is all
that DTLS stacks without RSA (aiortc's, str0m's) accept.
Prints one JSON object and exits 1 when it failed. libnice ignores loopback: give its network namespace a veth address,
and the server an address that it can reach from there (tests/README.md).
"""
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from urllib.parse import urljoin

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

PUBLISH = (
    "webrtcbin name=rtc bundle-policy=max-bundle "
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=640,height=360,framerate=30/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast bitrate=800 key-int-max=30 ! video/x-h264,profile=constrained-baseline "
    "! h264parse config-interval=-1 ! rtph264pay pt=102 aggregate-mode=zero-latency "
    "! application/x-rtp,media=video,encoding-name=H264,payload=102 ! rtc. "
    "audiotestsrc is-live=true wave=ticks ! audioconvert ! audioresample ! audio/x-raw,rate=48000,channels=2 ! opusenc "
    "! rtpopuspay pt=111 ! application/x-rtp,media=audio,encoding-name=OPUS,payload=111 ! rtc. "
)
AUDIO = "application/x-rtp,media=audio,encoding-name=OPUS,payload=111,clock-rate=48000,encoding-params=(string)2"
VIDEO = "application/x-rtp,media=video,encoding-name=H264,payload=102,clock-rate=90000,packetization-mode=(string)1,profile-level-id=(string)42e01f"


def ecdsa_certificate():
    """Certificate and key as one PEM text, and the certificate's fingerprint."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=client -keyout - -out -"
    text = subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout
    body = text.split("-----BEGIN CERTIFICATE-----")[1].split("-----END")[0]
    digest = hashlib.sha256(base64.b64decode(body)).hexdigest().upper()
    return text, ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def parse_sdp(text):
    _, message = GstSdp.SDPMessage.new()
    GstSdp.sdp_message_parse_buffer(text.encode(), message)
    return message


class Client:
    def __init__(self, mode, url, seconds):
        self.mode, self.url, self.seconds, self.loop = mode, url, seconds, GLib.MainLoop()
        self.out = {"ok": False, "video": 0, "audio": 0, "states": [], "caps": {}}
        self.posted = None
        if mode == "whip":
            self.pipeline = Gst.parse_launch(PUBLISH)
            self.rtc = self.pipeline.get_by_name("rtc")
            for index in range(2):
                self.rtc.emit("get-transceiver", index).set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
        else:
            self.pipeline = Gst.Pipeline.new()
            self.rtc = Gst.ElementFactory.make("webrtcbin", "rtc")
            self.rtc.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
            self.pipeline.add(self.rtc)
            self.rtc.connect("pad-added", self.on_media)
            for caps in (AUDIO, VIDEO):
                self.rtc.emit("add-transceiver", GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY, Gst.Caps.from_string(caps))
        self.fingerprint = None
        if not os.environ.get("GST_OWN_CERTIFICATE"):
            pem, self.fingerprint = ecdsa_certificate()
            self.pipeline.connect("deep-element-added", lambda _, __, element: self.on_element(element, pem))
        self.rtc.connect("notify::ice-connection-state", self.on_state)
        self.rtc.connect("notify::ice-gathering-state", self.on_gathering)
        self.rtc.connect("on-negotiation-needed", self.on_negotiation)

    def fail(self, why):
        self.out.setdefault("error", str(why))
        self.loop.quit()

    def on_element(self, element, pem):
        if element.get_factory() and element.get_factory().get_name() == "dtlsdec":
            element.set_property("pem", pem)

    def on_state(self, rtc, _):
        self.out["states"].append(rtc.get_property("ice-connection-state").value_nick)

    def on_negotiation(self, rtc):
        if self.posted is None:
            self.posted = 0
            rtc.emit("create-offer", None, Gst.Promise.new_with_change_func(self.on_offer))

    def on_offer(self, promise, *_):
        promise.wait()
        reply = promise.get_reply()  # must stay referenced while the offer inside it is read
        text = reply.get_value("offer").sdp.as_text()
        offer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.OFFER, parse_sdp(text))
        self.rtc.emit("set-local-description", offer, None)

    def on_gathering(self, rtc, _):
        if rtc.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            GLib.idle_add(self.post, rtc.get_property("local-description").sdp.as_text())

    def post(self, offer):
        if self.fingerprint:
            # webrtcbin writes the digest of certificate and key together when it is given both.
            offer = re.sub("(a=fingerprint:sha-256 )[0-9A-F:]+", r"\g<1>" + self.fingerprint, offer)
        request = urllib.request.Request(self.url, data=offer.encode(), headers={"Content-Type": "application/sdp"}, method="POST")
        self.posted = time.time()
        try:
            with urllib.request.urlopen(request, timeout=5) as reply:
                self.out.update(http=reply.status, location=reply.headers.get("Location"))
                answer = parse_sdp(reply.read().decode())
        except Exception as error:
            return self.fail(f"{error} {getattr(error, 'read', lambda: b'')().decode()[:300]}")
        self.rtc.emit("set-remote-description", GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, answer), None)
        return False

    def on_media(self, _, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        decoder = Gst.ElementFactory.make("decodebin")
        self.pipeline.add(decoder)
        decoder.connect("pad-added", self.on_decoded)
        decoder.sync_state_with_parent()
        pad.link(decoder.get_static_pad("sink"))

    def on_decoded(self, _, pad):
        caps = pad.get_current_caps().to_string()
        kind = "video" if caps.startswith("video") else "audio"
        self.out["caps"][kind] = caps[:120]
        queue, sink = Gst.ElementFactory.make("queue"), Gst.ElementFactory.make("fakesink")
        sink.set_property("signal-handoffs", True)
        sink.set_property("sync", False)
        sink.connect("handoff", lambda *_: self.count(kind))
        for element in (queue, sink):
            self.pipeline.add(element)
        queue.link(sink)
        for element in (queue, sink):
            element.sync_state_with_parent()
        pad.link(queue.get_static_pad("sink"))

    def count(self, kind):
        self.out.setdefault(f"{kind}FirstMs", round((time.time() - (self.posted or time.time())) * 1000))
        self.out[kind] += 1

    def on_message(self, _, message):
        if message.type == Gst.MessageType.ERROR:
            self.fail(message.parse_error()[0].message)

    def run(self):
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message", self.on_message)
        self.pipeline.set_state(Gst.State.PLAYING)
        GLib.timeout_add(int(self.seconds * 1000), self.loop.quit)
        self.loop.run()
        if self.out.get("location"):
            request = urllib.request.Request(urljoin(self.url, self.out["location"]), method="DELETE")
            try:
                with urllib.request.urlopen(request, timeout=3) as reply:
                    self.out["delete"] = reply.status
            except Exception as error:
                self.out["delete"] = str(error)
        self.pipeline.set_state(Gst.State.NULL)
        self.out["ok"] = "error" not in self.out and self.verdict()
        return self.out

    def verdict(self):
        if not {"connected", "completed"} & set(self.out["states"]):
            self.out["error"] = f"ICE did not connect: {self.out['states']}"
        elif self.mode == "whep" and not (self.out["video"] and self.out["audio"]):
            self.out["error"] = "no picture or no sound arrived"
        return "error" not in self.out


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in ("whip", "whep"):
        print(__doc__, file=sys.stderr)
        return 2
    Gst.init(None)
    out = Client(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 10).run()
    print(json.dumps(out))
    return 0 if out["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
