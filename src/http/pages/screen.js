// Where the picture and the sound come out: the video element, or a canvas and a speaker of the way's own.
// Refuses: knowing what is played.

import { byId } from "./ui.js";

export class Screen {
  /** `onSound()` is called when muted or volume changed, whoever changed it. */
  constructor({ muted, onSound }) {
    this.video = byId("video");
    this.onSound = onSound;
    this.muted = muted;
    this.volume = 1;
    // A way without a media element sets this: called with the volume (0 when muted) after every change.
    this.speaker = null;
    this.video.addEventListener("volumechange", () => {
      // A browser's own controls (picture in picture, media keys) change it too.
      this.muted = this.video.muted;
      this.volume = this.video.volume;
      this.onSound();
    });
    this.video.muted = muted;
  }

  get silent() { return this.muted || this.volume === 0; }

  set({ muted = this.muted, volume = this.volume }) {
    this.muted = muted;
    this.volume = volume;
    this.video.muted = muted;
    this.video.volume = volume;
    this.speaker?.(this.silent ? 0 : volume);
    this.onSound();
  }

  toggleSound() {
    this.set({ muted: !this.silent, volume: this.silent && this.volume === 0 ? 1 : this.volume });
  }

  /** The video element alone is seen. */
  showVideo() {
    this.speaker = null;
    byId("canvas").hidden = true;
    this.video.hidden = false;
    byId("pip").hidden = !document.pictureInPictureEnabled;
    return this.video;
  }

  /** A canvas of its own for each connection: a drawing context that was given up cannot be had again. */
  showCanvas(speaker) {
    this.speaker = speaker;
    this.video.hidden = true;
    byId("pip").hidden = true;
    const canvas = document.createElement("canvas");
    canvas.id = "canvas";
    byId("canvas").replaceWith(canvas);
    return canvas;
  }

  /** Muted playback is allowed everywhere; sound often needs a click first. Rather a silent picture than none. */
  async startVideo(onRefused) {
    try {
      await this.video.play();
    } catch (error) {
      if (error.name !== "NotAllowedError") return;
      this.set({ muted: true });
      await this.video.play().catch(onRefused);
    }
  }
}
