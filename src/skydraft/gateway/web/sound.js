// The microphone, as a WAV file of 16 bits. Nothing is sent before the recording has ended.

export class Recording {
  /** onlevel(level, seconds): how loud it is, 0 to 1, and how long it has been. */
  static async begin(onlevel) {
    if (!navigator.mediaDevices) throw new Error("The browser lends its microphone to this machine's own pages and to https only.");
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
    let context = null;
    try {
      context = new AudioContext(); // at the microphone's own rate: not every browser takes another
      await context.audioWorklet.addModule("/page/capture.js");
      return new Recording(stream, context, onlevel);
    } catch (error) {
      stop(stream);
      await context?.close();
      throw error;
    }
  }

  constructor(stream, context, onlevel) {
    this.stream = stream;
    this.context = context;
    this.pieces = [];
    this.numSamples = 0;
    this.node = new AudioWorkletNode(context, "capture");
    this.node.port.onmessage = ({ data }) => {
      this.pieces.push(data);
      this.numSamples += data.length;
      onlevel(Math.sqrt(data.reduce((sum, sample) => sum + sample * sample, 0) / data.length), this.numSamples / context.sampleRate);
    };
    context.createMediaStreamSource(stream).connect(this.node);
  }

  /** A WAV file of what was heard. */
  async end() {
    this.node.port.onmessage = null;
    stop(this.stream);
    const rate = this.context.sampleRate;
    await this.context.close();
    return new Blob([wavHead(this.numSamples, rate), ...this.pieces.map(as16Bits)], { type: "audio/wav" });
  }
}

function stop(stream) {
  for (const track of stream.getTracks()) track.stop();
}

function as16Bits(samples) {
  return Int16Array.from(samples, (sample) => Math.max(-32768, Math.min(32767, Math.round(32767 * sample))));
}

function wavHead(numSamples, rate) {
  const head = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => [...letters].forEach((letter, i) => head.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  head.setUint32(4, 36 + 2 * numSamples, true);
  text(8, "WAVEfmt ");
  head.setUint32(16, 16, true);
  head.setUint16(20, 1, true);
  head.setUint16(22, 1, true);
  head.setUint32(24, rate, true);
  head.setUint32(28, 2 * rate, true);
  head.setUint16(32, 2, true);
  head.setUint16(34, 16, true);
  text(36, "data");
  head.setUint32(40, 2 * numSamples, true);
  return head.buffer;
}
