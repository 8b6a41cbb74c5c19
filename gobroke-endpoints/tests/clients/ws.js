// Node's `ws` as a client: node ws.js URL WSS_URL CA_FILE
// Says "waiting" once all is well, and ends well where the server then closes with 1001.
"use strict";
const assert = require("assert");
const { once } = require("events");
const fs = require("fs");
const WebSocket = require("ws");

const [url, secure, authority] = process.argv.slice(2);
const SIZES = [0, 1, 125, 126, 127, 65535, 65536, 300000];

async function open(to, options) {
  const client = new WebSocket(to, [], options);
  await once(client, "open");
  return client;
}

/** Sends payloads at once and asserts that they come back in order, of the same kind. */
async function echoes(client, payloads) {
  const answers = [];
  const all = new Promise((resolve) => {
    client.on("message", (data, isBinary) => {
      answers.push(isBinary ? data : data.toString());
      if (answers.length === payloads.length) resolve();
    });
  });
  for (const payload of payloads) client.send(payload);
  await all;
  client.removeAllListeners("message");
  assert.deepStrictEqual(answers, payloads);
}

async function main() {
  for (const perMessageDeflate of [false, { threshold: 0 }]) {
    const client = await open(url, { perMessageDeflate });
    assert.strictEqual(client.extensions.includes("permessage-deflate"), perMessageDeflate !== false);
    for (const size of SIZES) {
      await echoes(client, [Buffer.alloc(size, 7), "ä".repeat(size / 2)]);
    }
    await echoes(client, Array.from({ length: 1000 }, (_, number) => `message ${number}`));

    const whole = once(client, "message");
    client.send("in ", { fin: false });
    client.ping("between");
    client.send("two pieces", { fin: true });
    const [pong] = await once(client, "pong");
    assert.strictEqual(pong.toString(), "between");
    assert.strictEqual((await whole)[0].toString(), "in two pieces");

    client.close(4321, "enough");
    const [code] = await once(client, "close");
    assert.strictEqual(code, 4321);
  }

  const foreign = new WebSocket(url, { origin: "https://evil.example" });
  const [, refusal] = await once(foreign, "unexpected-response");
  assert.strictEqual(refusal.statusCode, 403);
  foreign.on("error", () => {});
  foreign.terminate();

  const encrypted = await open(secure, { ca: fs.readFileSync(authority) });
  await echoes(encrypted, ["over TLS"]);

  const last = await open(url);
  console.log("waiting");
  const [code, reason] = await once(last, "close");
  assert.deepStrictEqual([code, reason.toString()], [1001, "going away"]);
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
