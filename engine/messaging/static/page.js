// Draws asyncapi.json: each operation with its channel, its messages and their schemas. Text is only ever set as text.
"use strict";

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

function resolved(root, node) {
  while (node && typeof node.$ref === "string") {
    node = node.$ref
      .slice(2)
      .split("/")
      .map((part) => decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~"))
      .reduce((at, part) => at?.[part], root);
  }
  return node;
}

function expanded(root, node, within) {
  if (Array.isArray(node)) return node.map((item) => expanded(root, item, within));
  if (node === null || typeof node !== "object") return node;
  if (typeof node.$ref === "string") {
    return within.includes(node.$ref) ? node : expanded(root, resolved(root, node), [...within, node.$ref]);
  }
  return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, expanded(root, value, within)]));
}

function drawMessage(root, name, reference) {
  const message = resolved(root, reference);
  const summary = element("summary", null, element("code", name), ` ${message.title ?? ""}`);
  const details = element("details", null, summary);
  // Schemas are long and many: each is drawn when it is looked at.
  details.addEventListener("toggle", () => {
    if (!details.open || details.children.length > 1) return;
    details.append(element("p", `Content type: ${message.contentType ?? root.defaultContentType}`));
    for (const [title, schema] of [["Headers", message.headers], ["Body", message.payload]]) {
      if (schema === undefined) continue;
      details.append(element("p", title), element("pre", JSON.stringify(expanded(root, schema, []), null, 2)));
    }
  });
  return details;
}

function drawParameters(channel) {
  const list = element("dl", null);
  for (const [name, parameter] of Object.entries(channel.parameters ?? {})) {
    list.append(element("dt", name), element("dd", parameter.description ?? ""));
  }
  return list;
}

function drawOperation(root, name, operation) {
  const channel = resolved(root, operation.channel);
  const section = element("section", null, element("h2", name));
  section.id = name;
  const address = element("p", null, element("span", `${operation.action} `), element("code", channel.address));
  address.firstChild.className = "action";
  section.append(address, element("p", `${operation.summary ?? ""} ${channel.description ?? ""}`), drawParameters(channel));
  for (const [key, message] of Object.entries(channel.messages ?? {})) section.append(drawMessage(root, key, message));
  if (operation.reply) {
    section.append(element("h3", "Answered by"));
    for (const reference of operation.reply.messages ?? []) {
      section.append(drawMessage(root, reference.$ref.split("/").pop(), resolved(root, reference)));
    }
  }
  return section;
}

function draw(root) {
  const servers = Object.values(root.servers).map((server) => `${server.protocol}://${server.host}`);
  document.getElementById("info").textContent =
    `${root.info.title} ${root.info.version}, AsyncAPI ${root.asyncapi}, ${servers.join(", ")}. ${root.info.description}`;
  const contents = element("ul", null);
  for (const [name, operation] of Object.entries(root.operations)) {
    const link = element("a", name);
    link.href = `#${name}`;
    contents.append(element("li", null, link));
    document.getElementById("operations").append(drawOperation(root, name, operation));
  }
  document.getElementById("contents").append(contents);
  document.body.dataset.drawn = "true";
}

fetch("/asyncapi.json")
  .then((answer) => answer.json())
  .then(draw)
  .catch((error) => {
    document.getElementById("info").textContent = `The document cannot be read (${error}): load the page again.`;
  });
