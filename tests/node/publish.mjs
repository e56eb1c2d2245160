// Sends events over NATS as a program in JavaScript would: its own CloudEvents SDK, its own NATS client.
// `node publish.mjs NATS_URL TENANT`; prints one line of JSON for each answer.
import { CloudEvent, HTTP } from "cloudevents";
import { connect, headers } from "nats";

const [url, tenant] = process.argv.slice(2);
const { username, password, host } = new URL(url);
const client = await connect({ servers: host, user: username, pass: decodeURIComponent(password) });

const events = ["structured", "binary"].map(
  (mode, number) =>
    new CloudEvent({
      id: `order-${number}`,
      source: "urn:node:shop",
      type: "breakers.failed",
      subject: "payments/eu",
      time: "2026-01-02T03:04:05.678Z",
      correlationid: `order ${number} é`,
      data: { service_name: "payments/eu", error_class: "TimeoutError", details: { mode, number } },
    }),
);

for (let round = 0; round < 2; round++) {
  for (const event of events) {
    const mode = event.data.details.mode;
    const message = HTTP[mode](event);
    const sent = headers();
    for (const [name, value] of Object.entries(message.headers)) {
      sent.set(name, name.startsWith("ce-") ? encodeURIComponent(value) : value);
    }
    sent.set("Relight-Ack", "projected");
    const answer = await client.request(`in.${tenant}`, message.body, { headers: sent, timeout: 20_000 });
    console.log(JSON.stringify({ mode, status: answer.headers.get("Relight-Status"), ...answer.json() }));
  }
}

const refused = await client.request(`in.${tenant}`, "not JSON", { timeout: 20_000 });
console.log(JSON.stringify({ mode: "garbage", ...refused.json() }));
await client.drain();
