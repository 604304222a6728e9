"""The tools of any MCP server, brought into the box."""
