import llm


def ask():
    return llm.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
