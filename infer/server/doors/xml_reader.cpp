#include "infer/server/doors/xml_reader.h"

#include <expat.h>

#include <memory>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

constexpr std::size_t kMostXmlBytes = 256 << 10;
constexpr std::size_t kMostXmlDepth = 32;
constexpr std::size_t kMostXmlElements = 5000;

using ParserHandle = std::unique_ptr<XML_ParserStruct, decltype(&XML_ParserFree)>;

// Collects what the parser tells; the open elements are a stack.
class XmlBuilder {
 public:
  explicit XmlBuilder(XML_Parser parser) : parser_(parser), open_(1) {
    XML_SetUserData(parser, this);
    XML_SetElementHandler(parser, on_begin, on_end);
    XML_SetStartDoctypeDeclHandler(parser, on_doctype);
  }

  const std::string& fault() const { return fault_; }
  XmlElement take_root() { return std::move(open_[0].children.at(0)); }

 private:
  static void XMLCALL on_begin(void* self, const XML_Char* name, const XML_Char** attributes) {
    static_cast<XmlBuilder*>(self)->begin(name, attributes);
  }
  static void XMLCALL on_end(void* self, const XML_Char* /*name*/) {
    static_cast<XmlBuilder*>(self)->end();
  }
  static void XMLCALL on_doctype(void* self, const XML_Char* /*name*/, const XML_Char* /*system*/,
                                 const XML_Char* /*public_id*/, int /*has_internal*/) {
    static_cast<XmlBuilder*>(self)->stop("a document type (<!DOCTYPE …>)");
  }

  void begin(const XML_Char* name, const XML_Char** attributes) {
    if (!fault_.empty()) return;
    if (++count_ > kMostXmlElements) return stop(concat("over ", kMostXmlElements, " elements"));
    if (open_.size() > kMostXmlDepth) return stop(concat("over ", kMostXmlDepth, " levels"));
    XmlElement element{.name = name};
    for (; *attributes != nullptr; attributes += 2)
      element.attributes[attributes[0]] = attributes[1];
    open_.push_back(std::move(element));
  }

  void end() {
    if (!fault_.empty()) return;
    XmlElement element = std::move(open_.back());
    open_.pop_back();
    open_.back().children.push_back(std::move(element));
  }

  void stop(std::string fault) {
    fault_ = std::move(fault);
    XML_StopParser(parser_, XML_FALSE);
  }

  XML_Parser parser_;
  std::vector<XmlElement> open_;  // the first holds the document's root
  std::size_t count_ = 0;
  std::string fault_;
};

}  // namespace

const std::string& XmlElement::attribute(const std::string& attribute_name) const {
  static const std::string none;
  const auto found = attributes.find(attribute_name);
  return found == attributes.end() ? none : found->second;
}

XmlElement read_xml(std::string_view text) {
  if (text.size() > kMostXmlBytes) {
    throw Error({.what = "the XML is too long",
                 .got = concat(text.size(), " bytes"),
                 .wanted = concat("at most ", kMostXmlBytes)});
  }
  const ParserHandle parser(XML_ParserCreate("UTF-8"), XML_ParserFree);
  if (!parser) throw Error({.what = "no memory for the XML"});
  XmlBuilder builder(parser.get());
  if (XML_Parse(parser.get(), text.data(), static_cast<int>(text.size()), XML_TRUE) ==
      XML_STATUS_OK) {
    return builder.take_root();
  }
  const std::string reason = builder.fault().empty()
                                 ? std::string(XML_ErrorString(XML_GetErrorCode(parser.get())))
                                 : builder.fault();
  throw Error({.what = "XML that can't be read",
               .where = concat("line ", XML_GetCurrentLineNumber(parser.get())),
               .got = reason});
}

}  // namespace vlm::infer
