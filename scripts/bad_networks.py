#!/usr/bin/env python3
"""WebRTC through bad networks, measured with real clients: scripts/bad_networks.py ladder|narrow [options]

  ladder   for each loss one row: Chromium and aiortc watch a source (WHEP), then both publish (WHIP) to an RTMP player
  narrow   one viewer behind a link that first takes less than the stream, then more: estimate and round trip over time

The network is patchbay-impair between patchbay and the clients. Needs what `make test` installs and builds, and a machine
that does nothing else: late clients look like a bad network.
"""
import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASE = Path(os.environ.get('CARGO_TARGET_DIR', ROOT / 'target')) / 'release'
CLIENTS = ROOT / 'tests' / 'clients'
PYTHON = str(ROOT / '.venv' / 'bin' / 'python')
INSIDE, OUTSIDE = '127.0.0.1', '127.0.0.2'


class Processes:
    """Ends what it started, the last first."""

    def __init__(self):
        self.running = []
        self.logs = Path(tempfile.mkdtemp(prefix='patchbay-bad-networks-'))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        while self.running:
            self.end(self.running[-1])

    def start(self, name, *command, reports=False):
        """`reports`: it prints an object for `report`; all else that is said goes to a log."""
        log = open(self.logs / f'{len(self.running)}-{name}.log', 'w')
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if reports else log,
                                   stderr=log, text=True, cwd=ROOT, start_new_session=True)
        self.running.append(process)
        return process

    def end(self, process):
        self.running.remove(process)
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sign)
            except ProcessLookupError:
                pass
            try:
                return process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                pass

    def report(self, process, limit):
        """The JSON object that a client prints at its end."""
        try:
            said, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            self.end(process)
            return {}
        self.running.remove(process)
        return json.loads(said.strip().splitlines()[-1]) if said.strip() else {}


def free_ports(count):
    """Below those that clients are given."""
    found, port = [], random.randrange(21_000, 30_000)
    while len(found) < count:
        port += 1
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((INSIDE, port))
                udp.bind((INSIDE, port))
                found.append(port)
            except OSError:
                pass
    return found


class Hub:
    """patchbay, whose media port is reached through a network only."""

    def __init__(self, processes, network):
        self.http, self.rtmp, self.udp = free_ports(3)
        settings = [f'http.listen={INSIDE}:{self.http}', f'rtmp.listen={INSIDE}:{self.rtmp}', f'webrtc.listen={INSIDE}:{self.udp}',
                    f'webrtc.public_addresses={OUTSIDE}', 'webrtc.tcp=false']
        processes.start('patchbay', RELEASE / 'patchbay', 'run', *[w for s in settings for w in ('--set', s)])
        processes.start('network', RELEASE / 'patchbay-impair', 'udp', '--listen', f'{OUTSIDE}:{self.udp}',
                        '--to', f'{INSIDE}:{self.udp}', *network)
        until(lambda: self.get('/v1/streams') is not None, 10, 'patchbay answers')

    def url(self, path):
        return f'http://{INSIDE}:{self.http}{path}'

    def rtmp_url(self, stream):
        return f'rtmp://{INSIDE}:{self.rtmp}/{stream}'

    def get(self, path):
        try:
            with urllib.request.urlopen(self.url(path), timeout=5) as reply:
                return json.load(reply)
        except OSError:
            return None

    def wait_live(self, stream):
        def live():
            return any(s['name'] == stream and s['tracks'] for s in self.get('/v1/streams')['streams'])
        until(live, 30, f'{stream} is live')


def until(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f'not within {seconds} s: {what}')
        time.sleep(0.1)


def live_source(processes, hub, stream, seconds, kbps):
    processes.start('source', 'bash', CLIENTS / 'live_source.sh', seconds, '640x360', kbps, '-f', 'flv', hub.rtmp_url(stream))
    hub.wait_live(stream)


def browser(processes, *options):
    return processes.start('chromium', 'node', CLIENTS / 'browser.mjs', *options, reports=True)


def aiortc(processes, *options):
    return processes.start('aiortc', PYTHON, CLIENTS / 'aiortc_client.py', *options, reports=True)


def seen(report):
    """What a viewer saw, in words. Only browsers count freezes (W3C webrtc-stats) and the sound they made up."""
    stamps = report.get('stamps') or {}
    if not stamps.get('read'):
        return 'nothing'
    text = f"{stamps['shownPct']} %, longest gap {stamps['longestGapMs']} ms, p50 {stamps['latencyMs']['p50']} ms"
    if isinstance(report.get('stats'), list):
        video, audio = (report['stats'][0]['in'][kind] for kind in ('video', 'audio'))
        made_up = 100 * audio['concealedSamples'] / max(1, audio['totalSamplesReceived'])
        text += f", freezes {video['freezeCount']} ({video['totalFreezesDuration']:.2f} s), sound made up {made_up:.1f} %"
    return text


def ladder(options):
    print(f'jitter {options.jitter} ms, loss in both directions, {options.seconds} s each\n')
    print('| loss | ' + ' | '.join(f'{client} {way}' for way in options.ways for client in ('Chromium', 'aiortc')) + ' |')
    print('|---' * (1 + 2 * len(options.ways)) + '|', flush=True)
    for loss in options.loss:
        cells = [seen(report) for way in options.ways for report in (watch if way == 'WHEP' else publish)(options, loss)]
        print(f'| {loss:g} % | ' + ' | '.join(cells) + ' |', flush=True)


def lossy(options, loss):
    return ['--loss', loss, '--jitter', options.jitter, '--seed', options.seed]


def watch(options, loss):
    with Processes() as processes:
        hub = Hub(processes, lossy(options, loss))
        live_source(processes, hub, 'live/a', options.seconds + 60, options.kbps)
        url, limits = hub.url('/whep/live/a'), ['--stamp', 'wall', '--seconds', options.seconds]
        clients = [browser(processes, '--whep', url, *limits), aiortc(processes, 'whep', url, *limits)]
        return [processes.report(client, options.seconds + 60) for client in clients]


def publish(options, loss):
    with Processes() as processes:
        hub = Hub(processes, lossy(options, loss))
        seconds = options.seconds + 40
        rates = ['--min-kbps', options.kbps // 2, '--max-kbps', options.kbps]
        browser(processes, '--whip', hub.url('/whip/live/chromium'), '--canvas', *rates, '--seconds', seconds)
        aiortc(processes, 'whip', hub.url('/whip/live/aiortc'), '--seconds', seconds)
        streams = ['live/chromium', 'live/aiortc']
        for stream in streams:
            hub.wait_live(stream)
        time.sleep(3)
        read = [PYTHON, CLIENTS / 'stamp.py', 'read']
        how = ['--kind', 'wall', '--seconds', options.seconds]
        readers = [processes.start('reader', *read, hub.rtmp_url(stream), *how, reports=True) for stream in streams]
        return [processes.report(reader, options.seconds + 40) for reader in readers]


def narrow(options):
    before, after, change = options.rates[0], options.rates[1], 30
    with Processes() as processes:
        link = [f'rate={rate},queue={options.queue},delay=10' for rate in (before, after)]
        hub = Hub(processes, ['--down', link[0], '--schedule', f'{change}s: down {link[1]}'])
        begin = time.monotonic()
        live_source(processes, hub, 'live/a', 2 * change + 30, options.kbps)
        viewer = browser(processes, '--whep', hub.url('/whep/live/a'), '--stamp', 'wall', '--seconds', 2 * change)
        until(lambda: viewing(hub), 20, 'the viewer is there')
        joined = time.monotonic()
        print(f'{before} kbit/s, then {after} kbit/s from {begin + change - joined:.1f} s after joining; a stream of {options.kbps} kbit/s')
        print('seconds  estimate kbit/s  round trip ms  pictures left out')
        while (elapsed := time.monotonic() - joined) < 2 * change - 5:
            row = viewing(hub) or {}
            cells = (row.get(name) or 0 for name in ('bandwidth_kbps', 'rtt_ms', 'skipped'))
            print('{:7.1f}  {:15}  {:13.0f}  {:17}'.format(elapsed, *cells), flush=True)
            time.sleep(0.5)
        print(seen(processes.report(viewer, 60)))


def viewing(hub):
    """The viewer's row in the ledger."""
    return next((row for row in hub.get('/v1/pairs')['pairs'] if row['protocol'] == 'whep'), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    one = commands.add_parser('ladder', help='losses, both directions')
    one.add_argument('--loss', type=lambda text: [float(word) for word in text.split(',')], default=[1, 5, 10, 30], help='percent: 1,5,10,30')
    one.add_argument('--jitter', type=float, default=40, help='milliseconds (40)')
    one.add_argument('--seconds', type=int, default=60, help='of each measurement (60)')
    one.add_argument('--ways', type=lambda text: text.split(','), default=['WHEP', 'WHIP'], help='WHEP,WHIP')
    two = commands.add_parser('narrow', help='a link that is too narrow, then grows')
    two.add_argument('--rates', type=lambda text: [int(word) for word in text.split(',')], default=[500, 2000], help='kbit/s: 500,2000')
    two.add_argument('--queue', type=int, default=1000, help='milliseconds that may wait for it (1000)')
    for command in (one, two):
        command.add_argument('--kbps', type=int, default=800, help='of the stream (800)')
        command.add_argument('--seed', type=int, default=1)
    options = parser.parse_args()
    {'ladder': ladder, 'narrow': narrow}[options.command](options)


if __name__ == '__main__':
    main()
