//! In the page under test: what it draws on a canvas as a media element that can be watched, and what it sends to its
//! speakers. Changes nothing that the page could see.
(() => {
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (target, ...rest) {
    if (target instanceof AudioDestinationNode) {
      window.patchbaySpeaker = new AnalyserNode(target.context);
      connect.call(this, window.patchbaySpeaker);
    }
    return connect.call(this, target, ...rest);
  };

  window.patchbayCanvasVideo = async (canvas) => {
    const video = document.createElement('video');
    video.muted = true;
    video.srcObject = canvas.captureStream();
    await video.play();
    return video;
  };
})();
