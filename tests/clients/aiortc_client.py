#!/usr/bin/env python3
"""aiortc as WHIP publisher, WHEP player, or small WHIP + WHEP server that other clients are tested and calibrated with.

  aiortc_client.py whip URL [--seconds 10] [--file F] [--width 640 --height 360 --fps 30]
  aiortc_client.py whep URL [--seconds 10] [--stamp n|wall] [--settle 2] [--wav OUT.wav]
  aiortc_client.py serve PORT [--seconds 60]      POST /whip and POST /whep on RTC_HOST; /whep plays what /whip got,
                                                  or a stamped picture with beeps
Prints one JSON object (serve: one line when it listens) and exits 1 when it failed.
Environment: RTC_HOST (127.0.0.1), the one address to offer. Run it with the project's .venv.
"""
import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from urllib.parse import urljoin

import aiohttp
import aioice.ice
from aiohttp import web
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCRtpSender, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer, MediaRelay

from rtc_media import Beeps, Meter, StampedPicture

HOST = os.environ.get("RTC_HOST", "127.0.0.1")
# aioice leaves loopback out of its candidates; a test has nothing else.
aioice.ice.get_host_addresses = lambda use_ipv4=True, use_ipv6=True: [HOST]

STATS = ("packetsReceived", "packetsLost", "packetsSent", "bytesReceived", "bytesSent", "jitter", "roundTripTime", "fractionLost")


def new_peer():
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


def prefer(peer, codec):
    for transceiver in peer.getTransceivers():
        if transceiver.kind == "video":
            side = RTCRtpReceiver if transceiver.direction == "recvonly" else RTCRtpSender
            all_codecs = side.getCapabilities("video").codecs
            transceiver.setCodecPreferences([c for c in all_codecs if c.name.lower() in (codec.lower(), "rtx")])


async def statistics(peer):
    out = {}
    for s in (await peer.getStats()).values():
        if s.type in ("inbound-rtp", "outbound-rtp", "remote-inbound-rtp"):
            out[f"{s.type}:{s.kind}"] = {k: getattr(s, k) for k in STATS if hasattr(s, k)}
    return out


async def connected(peer, seconds=8):
    end = time.time() + seconds
    while peer.connectionState != "connected":
        if peer.connectionState in ("failed", "closed") or time.time() > end:
            raise RuntimeError(f"not connected: {peer.connectionState}, ICE {peer.iceConnectionState}")
        await asyncio.sleep(0.01)


async def client(args, out):
    peer, meter = new_peer(), Meter(args.stamp, args.fps, args.settle, args.wav)
    readers = []
    if args.command == "whep":
        peer.addTransceiver("audio", direction="recvonly")
        peer.addTransceiver("video", direction="recvonly")
        peer.on("track", lambda t: readers.append(asyncio.ensure_future(meter.watch(t) if t.kind == "video" else meter.listen(t))))
    else:
        player = MediaPlayer(args.file, loop=True) if args.file else None
        for track in (player.audio, player.video) if player else (Beeps(), StampedPicture(args.width, args.height, args.fps)):
            if track:
                peer.addTransceiver(track, direction="sendonly")
    prefer(peer, args.codec)
    await peer.setLocalDescription(await peer.createOffer())
    headers = {"Content-Type": "application/sdp", **({"Authorization": f"Bearer {args.token}"} if args.token else {})}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=not args.insecure)) as http:
        posted, resource = time.time(), None
        try:
            async with http.post(args.url, data=peer.localDescription.sdp) as reply:
                answer, location = await reply.text(), reply.headers.get("Location")
                out.update(http=reply.status, location=location)
                if reply.status not in (200, 201):
                    raise RuntimeError(f"HTTP {reply.status}: {answer[:500]}")
                resource = location and urljoin(args.url, location)
            if args.sdp:
                out.update(offer=peer.localDescription.sdp, answer=answer)
            await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            await connected(peer)
            out["connectMs"] = round((time.time() - posted) * 1000)
            asked = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, asked.set)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), args.seconds)
            out.update(state=peer.connectionState, stats=await statistics(peer))
            if args.command == "whep":
                out.update(meter.report(posted))
                if not meter.frames:
                    raise RuntimeError("no picture arrived")
                if not meter.samples:
                    raise RuntimeError("no sound arrived")
        finally:
            if resource:
                async with http.delete(resource) as reply:
                    out["delete"] = reply.status
            await peer.close()
    out["ok"] = True


class Server:
    """The smallest WHIP + WHEP server that real clients accept. Full ICE, no trickle, one stream."""

    def __init__(self, args):
        self.args, self.peers, self.relay, self.live = args, [], MediaRelay(), {}

    async def answer(self, peer):
        prefer(peer, self.args.codec)
        for transceiver in peer.getTransceivers():
            # DTLS server, as media servers mostly are; aiortc as DTLS client accepts no RSA certificate.
            transceiver.sender.transport._set_role("server")
        await peer.setLocalDescription(await peer.createAnswer())
        self.peers.append(peer)
        return web.Response(status=201, content_type="application/sdp", text=peer.localDescription.sdp, headers={"Location": f"/session/{len(self.peers) - 1}", **CORS})

    async def whip(self, request):
        peer = new_peer()
        peer.on("track", lambda track: self.live.__setitem__(track.kind, track))
        await peer.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
        return await self.answer(peer)

    async def whep(self, request):
        peer, args = new_peer(), self.args
        own = {} if self.live else {"audio": Beeps(), "video": StampedPicture(args.width, args.height, args.fps)}
        await peer.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
        for transceiver in peer.getTransceivers():
            track = self.live.get(transceiver.kind)
            track = self.relay.subscribe(track) if track else own.get(transceiver.kind)
            if track:
                transceiver.sender.replaceTrack(track)
                transceiver.direction = "sendonly"
        return await self.answer(peer)

    async def delete(self, request):
        await self.peers[int(request.match_info["index"])].close()
        return web.Response(headers=CORS)

    async def run(self):
        app = web.Application()
        app.add_routes([web.post("/whip", self.whip), web.post("/whep", self.whep), web.delete("/session/{index}", self.delete)])
        app.add_routes([web.options("/{any:.*}", lambda _: asyncio.sleep(0, web.Response(headers=CORS)))])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, HOST, int(self.args.url)).start()
        print(json.dumps({"listening": f"http://{HOST}:{self.args.url}"}), flush=True)
        await asyncio.sleep(self.args.seconds)


CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*", "Access-Control-Allow-Methods": "*", "Access-Control-Expose-Headers": "Location"}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("command", choices=["whip", "whep", "serve"])
    p.add_argument("url", help="of the endpoint; for serve the port")
    p.add_argument("--seconds", type=float, default=10, help="at most; a client reports earlier when SIGUSR2 comes")
    p.add_argument("--codec", default="H264")
    p.add_argument("--stamp", choices=["n", "wall"], default="wall")
    p.add_argument("--settle", type=float, default=2, help="seconds after the first frame that are not judged")
    p.add_argument("--file")
    p.add_argument("--wav")
    p.add_argument("--token")
    p.add_argument("--insecure", action="store_true", help="take any certificate")
    p.add_argument("--sdp", action="store_true")
    p.add_argument("--width", type=int, default=640)
    p.add_argument("--height", type=int, default=360)
    p.add_argument("--fps", type=int, default=30)
    args = p.parse_args()
    if args.command == "serve":
        asyncio.run(Server(args).run())
        return 0
    out = {"ok": False}
    try:
        asyncio.run(asyncio.wait_for(client(args, out), args.seconds + 30))
    except Exception as error:
        out["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(out))
    return 0 if out["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
