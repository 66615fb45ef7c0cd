//! In the page: WHIP publish, WHEP play, and a digest of RTCStats. Every RTCPeerConnection the page makes, its own or
//! those of a page under test, is remembered so that its statistics can be read.
(() => {
  const connections = (window.patchbayConnections = []);
  const Native = window.RTCPeerConnection;
  if (Native) {
    window.RTCPeerConnection = class extends Native {
      constructor(...args) {
        super(...args);
        connections.push(this);
      }
    };
  }

  const STREAM_FIELDS = ['packetsReceived', 'packetsLost', 'packetsSent', 'bytesReceived', 'bytesSent', 'framesReceived', 'framesDecoded',
    'framesEncoded', 'keyFramesDecoded', 'keyFramesEncoded', 'framesDropped', 'freezeCount', 'totalFreezesDuration', 'pauseCount',
    'frameWidth', 'frameHeight', 'framesPerSecond', 'nackCount', 'pliCount', 'firCount', 'jitter', 'jitterBufferDelay',
    'jitterBufferEmittedCount', 'concealedSamples', 'silentConcealedSamples', 'concealmentEvents', 'totalSamplesReceived',
    'insertedSamplesForDeceleration', 'removedSamplesForAcceleration', 'retransmittedPacketsSent', 'retransmittedPacketsReceived',
    'qualityLimitationReason', 'targetBitrate', 'encoderImplementation', 'decoderImplementation', 'estimatedPlayoutTimestamp', 'totalAudioEnergy'];

  async function digest(pc) {
    const stats = [...(await pc.getStats()).values()];
    const byId = new Map(stats.map((s) => [s.id, s]));
    const address = (id) => { const c = byId.get(id); return c && `${c.address}:${c.port}/${c.candidateType}`; };
    const out = { state: pc.connectionState, in: {}, out: {} };
    for (const s of stats) {
      if (s.type === 'inbound-rtp' || s.type === 'outbound-rtp') {
        const codec = byId.get(s.codecId);
        const o = { codec: codec?.mimeType, fmtp: codec?.sdpFmtpLine };
        for (const k of STREAM_FIELDS) if (s[k] !== undefined) o[k] = s[k];
        out[s.type === 'inbound-rtp' ? 'in' : 'out'][s.kind] = o;
      } else if (s.type === 'candidate-pair' && s.nominated) {
        out.pair = { rtt: s.currentRoundTripTime, available: s.availableOutgoingBitrate, local: address(s.localCandidateId), remote: address(s.remoteCandidateId), protocol: byId.get(s.localCandidateId)?.protocol };
      } else if (s.type === 'remote-inbound-rtp') {
        (out.remote ??= {})[s.kind] = { rtt: s.roundTripTime, lost: s.packetsLost };
      } else if (s.type === 'transport') {
        out.dtls = { state: s.dtlsState, version: s.tlsVersion, cipher: s.dtlsCipher, srtp: s.srtpCipher };
      }
    }
    return out;
  }

  const gathered = (pc) => new Promise((done) => {
    const check = () => pc.iceGatheringState === 'complete' && done();
    pc.addEventListener('icegatheringstatechange', check);
    setTimeout(done, 2000);
    check();
  });

  const connected = (pc, ms) => new Promise((done, fail) => {
    const check = () => {
      if (pc.connectionState === 'connected') done();
      if (pc.connectionState === 'failed') fail(new Error('the connection failed'));
    };
    pc.addEventListener('connectionstatechange', check);
    setTimeout(() => fail(new Error(`not connected after ${ms} ms: ${pc.connectionState}, ICE ${pc.iceConnectionState}`)), ms);
    check();
  });

  /** Puts `codec` (and the repair formats) alone into the offer's video section. */
  function prefer(transceiver, codec, side) {
    if (!codec) return;
    const all = side.getCapabilities('video').codecs;
    const wanted = all.filter((c) => c.mimeType.toLowerCase() === 'video/' + codec.toLowerCase());
    if (!wanted.length) throw new Error(`this browser has no ${codec}`);
    transceiver.setCodecPreferences([...wanted, ...all.filter((c) => /rtx|red|ulpfec|flexfec/i.test(c.mimeType))]);
  }

  /** POSTs the offer from Node (no CORS) or, with `cors`, from the page as a real player does. */
  async function post(o, sdp) {
    if (!o.cors) return window.patchbayPost(o.url, sdp);
    const headers = { 'content-type': 'application/sdp', ...(o.token ? { authorization: 'Bearer ' + o.token } : {}) };
    const reply = await fetch(o.url, { method: 'POST', headers, body: sdp });
    const location = reply.headers.get('location');
    if (location) await window.patchbayResource(new URL(location, o.url).href);
    return { status: reply.status, location, body: await reply.text() };
  }

  async function negotiate(pc, o, edit = (sdp) => sdp) {
    await pc.setLocalDescription(await pc.createOffer());
    await gathered(pc);
    const offer = pc.localDescription.sdp;
    const postedAt = performance.now();
    const reply = await post(o, offer);
    if (reply.status !== 201 && reply.status !== 200) throw new Error(`HTTP ${reply.status}: ${reply.body.slice(0, 500)}`);
    await pc.setRemoteDescription({ type: 'answer', sdp: edit(reply.body) });
    await connected(pc, 8000);
    const took = Math.round(performance.now() - postedAt);
    return { postedAt, report: { status: reply.status, location: reply.location, connectMs: took, ...(o.sdp ? { offer, answer: reply.body } : {}) } };
  }

  /** Chromium starts at 300 kbit/s and ramps; these lines in the answer make it start where the test wants it. */
  const bitrate = (o) => (sdp) => {
    if (o.maxKbps) sdp = sdp.replace(/(m=video[^]*?)(c=IN[^\r\n]*\r?\n)/, (_, before, c) => `${before}${c}b=AS:${o.maxKbps}\r\n`);
    if (!o.minKbps) return sdp;
    return sdp.replace(/(a=fmtp:\d+ [^\r\n]*profile-level-id[^\r\n]*)/g, `$1;x-google-min-bitrate=${o.minKbps};x-google-start-bitrate=${o.maxKbps ?? o.minKbps}`);
  };

  /** Stops the largest layer, as a sender with little bandwidth does. */
  const leaveOut = (sender) => {
    const parameters = sender.getParameters();
    parameters.encodings.at(-1).active = false;
    return sender.setParameters(parameters);
  };

  window.patchbayWhip = async (o) => {
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    const size = { width: o.width, height: o.height, frameRate: o.fps };
    const sound = { echoCancellation: false, noiseSuppression: false, autoGainControl: false }; // they mangle a beep
    const media = o.canvas
      ? window.patchbaySource({ width: o.width, height: o.height, fps: o.fps, audio: o.audio, video: o.video })
      : await navigator.mediaDevices.getUserMedia({ video: o.video && size, audio: o.audio && sound });
    let sender;
    // Little enough for the start of Chromium's estimate, so that all of them are sent soon.
    const layers = ['q', 'h', 'f'].map((rid, i) => ({ rid, scaleResolutionDownBy: 4 >> i, maxBitrate: 80_000 << i }));
    for (const track of media.getTracks()) {
      const sendEncodings = o.simulcast && track.kind === 'video' ? layers : undefined;
      const transceiver = pc.addTransceiver(track, { direction: 'sendonly', streams: [media], sendEncodings });
      if (track.kind !== 'video') continue;
      track.contentHint = 'motion';
      prefer(transceiver, o.codec, RTCRtpSender);
      sender = transceiver.sender;
    }
    const { report } = await negotiate(pc, o, bitrate(o));
    const parameters = sender?.getParameters();
    if (parameters?.encodings.length) {
      parameters.degradationPreference = 'maintain-resolution';
      if (o.maxKbps && !o.simulcast) parameters.encodings[0].maxBitrate = o.maxKbps * 1000;
      await sender.setParameters(parameters);
    }
    window.patchbayPublisher = pc;
    if (o.leaveOutAfter) setTimeout(() => leaveOut(sender), o.leaveOutAfter * 1000);
    return report;
  };

  window.patchbayWhep = async (o) => {
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    if (o.audio) pc.addTransceiver('audio', { direction: 'recvonly' });
    if (o.video) prefer(pc.addTransceiver('video', { direction: 'recvonly' }), o.codec, RTCRtpReceiver);
    const media = new MediaStream();
    const video = document.createElement('video');
    Object.assign(video, { autoplay: true, muted: true, playsInline: true, srcObject: media });
    video.style.width = '320px'; // drawing is done in software: small is cheap
    document.body.append(video);
    const watch = (window.patchbayWatching = window.patchbayWatch(video));
    pc.ontrack = ({ track }) => media.addTrack(track);
    window.patchbayViewer = pc;
    const { postedAt, report } = await negotiate(pc, o);
    watch.postedAt = postedAt;
    if (media.getAudioTracks().length) await watch.listen((context) => context.createMediaStreamSource(media));
    return report;
  };

  /** How far apart sound and picture are by the browser's own account: needs RTCP sender reports. Positive: sound late. */
  window.patchbayPlayout = () => {
    const offsets = (window.patchbayOffsets = []);
    setInterval(async () => {
      const { in: { audio, video } } = await digest(window.patchbayViewer);
      if (audio?.estimatedPlayoutTimestamp && video?.estimatedPlayoutTimestamp) {
        offsets.push(Math.round(video.estimatedPlayoutTimestamp - audio.estimatedPlayoutTimestamp));
      }
    }, 1000);
  };

  window.patchbayStats = () => Promise.all(connections.map(digest));
})();
