"""client = Anthropic(); client.messages.create(model="m", max_tokens=1, messages=[])"""

# client = anthropic.Anthropic()
# client.messages.create(model="m", max_tokens=1, messages=[])
EXAMPLE = """
from anthropic import Anthropic
Anthropic().messages.create(model="m", max_tokens=1, messages=[])
"""
TEMPLATE = "anthropic.Anthropic().messages.create({})"
print(EXAMPLE, TEMPLATE, "https://api.anthropic.com/v1/messages")
