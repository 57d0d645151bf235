// Talking with the program that serves this page.

/** A sentence for the person at the page. */
export class Refusal extends Error {}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refusal("the program that serves this page does not answer; start it again and reload");
  }
  if (response.ok) return response;
  let sentence = `the request was refused (${response.status}); reload the page`;
  try {
    sentence = (await response.json()).error || sentence;
  } catch { /* not one of our answers */ }
  throw new Refusal(sentence);
}

export const getJson = async path => (await ask(path)).json();

const post = (path, body) => ask(path, {method: "POST", body});

export const postJson = async (path, value) => (await post(path, JSON.stringify(value))).json();

/** Send a photo or a pose file; its name is only shown in messages. */
export async function postFile(path, file, limit) {
  if (file.size > limit) {
    throw new Refusal(
      `${file.name} has ${(file.size / 1e6).toFixed(1)} MB; at most ${(limit / 1e6).toFixed(1)} MB `
      + "are accepted: shrink it first");
  }
  return (await post(`${path}?name=${encodeURIComponent(file.name)}`, file)).json();
}

/** The generated picture of {source, source_keypoints, keypoints}: its PNG and milliseconds. */
export async function generate(fields) {
  const response = await post("picture", JSON.stringify(fields));
  return {
    blob: await response.blob(),
    milliseconds: Number(response.headers.get("X-Milliseconds")),
  };
}

/**
 * Asks again and again while something changes: at most one question is on its way, and the next
 * one is about the newest state. What came in between is never asked. The next question goes out
 * while its predecessor's answer is being shown.
 */
export class Latest {
  constructor({question, ask, answer, failure}) {
    Object.assign(this, {question, ask, answer, failure, wanted: false, busy: false, shown: null});
  }

  async want() {
    this.wanted = true;
    if (this.busy) return;
    this.busy = true;
    while (this.wanted) {
      this.wanted = false;
      try {
        const asked = this.question();
        const told = await this.ask(asked);
        await this.shown;
        this.shown = this.show(told, asked);
      } catch (error) {
        this.failure(error);
      }
    }
    this.busy = false;
  }

  async show(told, asked) {
    try {
      await this.answer(told, asked);
    } catch (error) {
      this.failure(error);
    }
  }
}
