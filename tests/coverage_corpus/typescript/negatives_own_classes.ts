class Anthropic {
  messages = { create: async (params: object) => params };
}

class Inbox {
  private readonly rows: object[] = [];
  create(row: object) {
    this.rows.push(row);
  }
}

class Mailer {
  messages = new Inbox();
  beta = { messages: this.messages };
}

const anthropic = new Anthropic();
anthropic.messages.create({ model: 'claude-haiku-4-5', max_tokens: 1, messages: [] });
new Mailer().messages.create({ model: 'm', max_tokens: 1, messages: [] });
new Mailer().beta.messages.create({});
