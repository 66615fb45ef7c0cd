#!/usr/bin/env python3
"""The four figures of a release, all measured now: scripts/release_sheet.py [MINUTES [FUZZ_SECONDS]]

MINUTES (10) do not count building. Of them the fuzzers have FUZZ_SECONDS in all (an eighth); 0 leaves them out.

  load held        what the server carried, at which cost
  faults survived  tests of faults that passed, and the longest time a viewer saw one picture
  bad inputs       saved inputs, inputs made of them, fuzzer executions; how many did harm
  nothing lost     pictures missing on clean paths; secrets found in logs

What there was no time for says "not run". Exits 1 when something failed. Fuzzers run if cargo-fuzz is there; `make fuzz` installs it.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CARGO = os.environ.get('CARGO', 'cargo')

# Each fault with the end-to-end test that injects it, the shortest first, and the seconds it needs.
FAULTS = [
    ('a publisher vanishes and comes back', 'rtmp::a_late_player_starts_with_the_newest_group_and_a_vanished_publisher_may_come_back', 30),
    ('a publisher on standby takes over', 'sources::a_publisher_that_stands_by_goes_live_when_the_first_is_killed', 30),
    ('the source changes size, order and rate', 'replan::b_frames_and_sizes_come_and_go_and_a_whep_viewer_misses_nothing', 60),
    ('the sound changes rate and channels', 'replan::the_sound_changes_its_rate_and_channels_and_everybody_goes_on_hearing_it', 60),
    ('stamps wrap, jump, stand still', 'timestamps::stamps_that_wrap_jump_or_stand_still_disconnect_nobody', 60),
    ('a lossy network', 'impaired::a_viewer_behind_a_lossy_network_sees_nearly_everything', 30),
    ('a narrow link', 'impaired::behind_a_narrow_link_a_viewer_gets_the_smaller_layer_of_a_simulcast', 60),
    ('half-open TCP and HTTP connections', 'half_open::connections_that_want_nothing_disturb_nobody_and_go', 45),
    ('half-open WebRTC sessions', 'half_open::whip_sessions_that_never_connect_are_bounded_and_go', 45),
    ('damaged H.264', 'hostile::damaged_h264_over_rtmp_costs_no_other_stream_anything', 45),
    ('a broken transport stream', 'hostile::a_broken_transport_stream_costs_no_other_stream_anything', 45),
    ('slow viewers and frozen ones', 'slow::slow_viewers_cost_the_others_nothing_and_those_who_read_nothing_are_cut', 60),
    ('reloads of the configuration', 'reload::fifty_reloads_a_second_cost_no_viewer_a_frame', 60),
    ('a wrong configuration', 'reload::a_wrong_file_changes_nothing_and_a_mended_one_is_taken_by_itself', 30),
    ('a stop signal', 'refusals::a_taken_port_is_named_and_a_stop_signal_ends_everything_in_time', 30),
    ('too little CPU', 'budget::three_times_too_much_steps_down_and_refuses_and_costs_a_passing_pair_nothing', 90),
    ('publishers take over from each other', 'sources::publishers_of_every_shape_take_over_from_each_other_and_nobody_is_cut', 60),
    ('the source is away and returns as something else', 'sources::everybody_stays_while_a_publisher_is_away_and_returns_as_something_else', 90),
    ('a phone turns, sleeps and reconnects', 'miniprogram::a_phone_that_turns_waits_and_reconnects_loses_no_viewer', 90),
]
SECRETS = 'secrets::secrets_are_seen_nowhere'
NOT_RUN = 'not run'
failures = []


def run(command, limit, **environment):
    """Its exit status (None when it took too long) and what it said."""
    try:
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, timeout=limit, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        said = error.stdout or ''
        return None, said if isinstance(said, str) else said.decode(errors='replace')


class Budget:
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self):
        return max(0, self.end - time.monotonic())


def cargo(*arguments):
    return [CARGO, *arguments]


def build():
    """Compiles everything first: it does not count."""
    for arguments in (['bench', '--locked', '--no-run', '-p', 'patchbay', '--bench', 'load', '--bench', 'soak', '--test', 'e2e'],
                      ['test', '--release', '--locked', '--workspace', '--lib', '--test', 'sessions', '--no-run']):
        status, said = run(cargo(*arguments), None)
        if status:
            sys.exit(said[-4000:])


def fail(what):
    failures.append(what)
    return f'FAILED ({what})'


def load_held(limit):
    loads = 'rtmp:50,whep:50'
    status, said = run(cargo('bench', '--locked', '-p', 'patchbay', '--bench', 'load'), limit, LOAD_VIEWERS=loads)
    rows = re.findall(r'^ *(rtmp|whep) +(\d+) +([\d.]+) +([\d.]+) +\S+ +\S+ +\S+ +([\d.]+|NaN)', said, re.M)
    if status != 0 or not rows:
        return [fail('load') if status is not None else NOT_RUN]
    return [f'1 stream × {viewers} {kind} viewers: {float(cpu) / 10:.1f} % of a core ({each} ms CPU per viewer-second), '
            f'p99 {delay} ms inside' for kind, viewers, cpu, each, delay in rows]


def seconds_of(text):
    """The longest time that a test printed as a Rust duration behind "one picture for"."""
    units = {'s': 1, 'ms': 1e-3, 'µs': 1e-6}
    return max((float(n) * units[u] for n, u in re.findall(r'one picture for ([\d.]+)(ms|µs|s)\b', text)), default=None)


def faults_survived(budget):
    passed, failed, skipped, worst = [], [], [], None
    for fault, test, needs in FAULTS:
        left = budget.left()
        if left < needs:
            skipped.append(fault)
            continue
        status, said = run(cargo('test', '--release', '--locked', '-p', 'patchbay', '--test', 'e2e', '--', '--exact', test,
                                 '--show-output'), left)
        if status is None:
            skipped.append(fault)
        elif status == 0 and '1 passed' in said:
            passed.append(fault)
            dark = seconds_of(said)
            if dark is not None and (worst is None or dark > worst[0]):
                worst = (dark, fault)
        else:
            failed.append(fault)
    lines = [f'{len(passed)} of {len(FAULTS)}: {"; ".join(passed) or "none"}']
    lines += [fail(fault) for fault in failed]
    lines += [f'{NOT_RUN}: {"; ".join(skipped)}'] if skipped else []
    return lines + [f'longest time with one picture: {worst[0]:.2f} s ({worst[1]})' if worst else f'worst recovery: {NOT_RUN}']


def bad_inputs(budget, fuzz_seconds):
    status, said = run(cargo('test', '--release', '--locked', '--workspace', '--lib', '--test', 'sessions', '--', 'saved_inputs',
                             '--show-output'), budget.left())
    replayed = re.findall(r'^replayed (\w+): (\d+) saved, (\d+) made', said, re.M)
    if status is None:
        lines = [f'saved inputs: {NOT_RUN}']
    else:
        harm = '0 did harm' if status == 0 and replayed else fail('saved inputs')
        saved, made = (sum(int(row[i]) for row in replayed) for i in (1, 2))
        lines = [f'{saved} saved and {made} made of them, for {len(replayed)} parsers: {harm}']
    return lines + [fuzz(fuzz_seconds, [name for name, *_ in replayed])]


def fuzz(seconds, targets):
    each = int(seconds / max(1, len(targets)))
    if not shutil.which('cargo-fuzz') or each < 2:
        return f'fuzzer executions: {NOT_RUN}'
    executions, ran, sound = 0, 0, True
    for target in targets:
        command = cargo('fuzz', 'run', '--release', '--sanitizer', 'none', target, '--', f'-max_total_time={each}',
                        '-rss_limit_mb=1024', '-print_final_stats=1')
        status, said = run(command, None, RUSTC_BOOTSTRAP='1')
        counted = re.search(r'number_of_executed_units: *(\d+)', said)
        if counted:
            executions, ran = executions + int(counted[1]), ran + 1
        if status != 0:
            sound = False
            fail(f'fuzzing {target}')
    return f'{executions} fuzzer executions of {ran} parsers: {"0 crashes" if sound and ran == len(targets) else "see failures"}'


def nothing_lost(budget):
    lines, seconds = [], 60
    if budget.left() < seconds + 60:
        lines.append(f'pictures on clean paths: {NOT_RUN}')
    else:
        # The three sources without holes of their own; the first network is a clean one.
        status, said = run(cargo('bench', '--locked', '-p', 'patchbay', '--bench', 'soak'), budget.left(), SOAK_SECONDS=str(seconds),
                           SOAK_SOURCES='3', SOAK_VIEWERS='6')
        file = re.search(r'\S+\.jsonl', said)
        rows = [json.loads(line) for line in Path(file[0]).read_text().splitlines()] if file else []
        rows = [row for row in rows if row.get('network') == 'clean']
        if status != 0 or not rows:
            lines.append(fail('soak'))
        for row in rows:
            lines += [f'{name}: {row[key]["missed"]} of {row[key]["pictures"] + row[key]["missed"]} pictures missing, '
                      f'{row[key]["ends"]} viewers cut' for name, key in (('WHEP', 'whep'), ('RTMP, FLV, jsmpeg', 'tcp'))]
    status, said = run(cargo('test', '--release', '--locked', '-p', 'patchbay', '--test', 'e2e', '--', '--exact', SECRETS), budget.left() or 1)
    found = NOT_RUN if status is None else '0' if status == 0 and '1 passed' in said else fail('secrets')
    return lines + [f'secrets found in logs, metrics and answers: {found}']


def main():
    try:
        minutes, *rest = [float(n) for n in sys.argv[1:]] or [10]
        fuzz_seconds, = rest or [minutes * 60 / 8]
    except ValueError:
        sys.exit(__doc__)
    seconds = 60 * minutes
    build()
    budget, begin = Budget(seconds), time.monotonic()
    # The tests of faults take what the others leave.
    figures = {
        'load held': load_held(seconds / 3),
        'nothing lost': nothing_lost(budget),
        'bad inputs tried': bad_inputs(budget, fuzz_seconds),
        'faults survived': faults_survived(budget),
    }
    commit = run(['git', 'describe', '--always', '--dirty'], 10)[1].strip()
    print(f'release sheet of {commit}, {time.monotonic() - begin:.0f} s, {os.cpu_count()} cores')
    for name in ('load held', 'faults survived', 'bad inputs tried', 'nothing lost'):
        print(f'\n{name}')
        for line in figures[name]:
            print('  ' + line)
    if failures:
        sys.exit('\nFAILED: ' + ', '.join(failures))


if __name__ == '__main__':
    main()
