from reference.page import PAGE, page

PAGE.write_text(page(), encoding="utf-8")
